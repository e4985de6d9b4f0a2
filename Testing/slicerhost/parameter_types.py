# ruff: noqa: N802, N807, N815 - the names are those of Slicer and Qt
"""From a type to how it is kept, and packs: groups of typed members that are parameters themselves."""

import enum
import pathlib
import types
import typing
from dataclasses import dataclass
from typing import Any

import slicer

from slicerhost.parameter_annotations import Default, find_annotation, plain_type, validators_of
from slicerhost.parameter_values import (
    DictValue,
    EnumValue,
    ListValue,
    NodeValue,
    NoneValue,
    PackValue,
    PlainValue,
    TupleValue,
    UnionValue,
    Value,
)

__all__ = ["FloatRange", "Member", "isParameterPack", "members_of", "parameterPack", "value_for"]


@dataclass
class Member:
    """A typed member of a wrapper or pack."""

    name: str
    unalteredType: Any
    value: Value
    default: Default


def members_of(cls: type) -> dict[str, Member]:
    """The annotated members of a class with their defaults."""
    members = {}
    for name, type_ in typing.get_type_hints(cls, include_extras=True).items():
        value = value_for(type_)
        annotated = find_annotation(type_, Default)
        default = Default(getattr(cls, name)) if hasattr(cls, name) else annotated or Default(value.default)
        if default.generator is None:
            value.check(default.value)
        members[name] = Member(name, type_, value, default)
    return members


def value_for(type_: Any) -> Value:
    """How values of a type are kept.

    Raises:
        TypeError: Where Slicer's wrapper has no way either, or this host has none yet.
    """
    validators = validators_of(type_)
    kind = plain_type(type_)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        return ListValue(value_for(arguments[0]), validators)
    if origin is tuple:
        return TupleValue([value_for(each) for each in arguments], validators)
    if origin is dict:
        return DictValue(value_for(arguments[0]), value_for(arguments[1]), validators)
    if origin is typing.Union or isinstance(kind, types.UnionType):
        return UnionValue([value_for(each) for each in arguments], validators)
    if kind is type(None):
        return NoneValue(validators)
    if isParameterPack(kind):
        return PackValue(kind, validators)
    if isinstance(kind, type):
        if issubclass(kind, slicer.vtkMRMLNode):
            return NodeValue(kind, validators)
        if issubclass(kind, enum.Enum):
            return EnumValue(kind, validators)
        if kind in (int, float, str, bool) or issubclass(kind, pathlib.PurePath):
            return PlainValue(kind, validators)
    raise TypeError(f"A parameter node cannot keep {type_}")


def isParameterPack(class_or_object: Any) -> bool:
    return getattr(class_or_object, "_is_parameter_pack", False)


def parameterPack(cls: type | None = None) -> Any:
    """Class decorator: a group of typed members that is a parameter itself."""
    if cls is None:
        return parameterPack
    members = members_of(cls)

    def known(name: str) -> tuple[str, str]:
        first, _, rest = name.partition(".")
        if first not in members and not isinstance(getattr(cls, first, None), property):
            raise ValueError(f"{cls.__name__} has no member {first}")
        if rest and not isParameterPack(plain_type(members[first].unalteredType)):
            raise ValueError(f"{cls.__name__}.{first} is no pack")
        return first, rest

    own = vars(cls).get("__init__")

    def __init__(self, *arguments: Any, **named: Any) -> None:
        object.__setattr__(self, "_home", None)
        if own is not None:
            fill(self)
            own(self, *arguments, **named)
        else:
            fill(self, *arguments, **named)

    def fill(self, *arguments: Any, **named: Any) -> None:
        if len(arguments) > len(members):
            raise TypeError(f"{cls.__name__} takes {len(members)} values, got {len(arguments)}")
        given = dict(zip(members, arguments, strict=False)) | named
        for name in given:
            if name not in members:
                raise TypeError(f"{cls.__name__}() got an unexpected keyword argument '{name}'")
        for name, member in members.items():
            setattr(self, name, given.get(name, member.default.value))

    def __setattr__(self, name: str, value: Any) -> None:
        if self._home is not None and name not in members and not hasattr(cls, name):
            raise AttributeError(f"{cls.__name__} has no member {name}")
        if name in members:
            members[name].value.check(value)
            if self._home is not None:
                node, prefix = self._home
                members[name].value.write(node, f"{prefix}.{name}", value)
        object.__setattr__(self, name, value)

    def __eq__(self, other: Any) -> bool:
        return type(self) is type(other) and all(getattr(self, name) == getattr(other, name) for name in members)

    def __repr__(self) -> str:
        return f"{cls.__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in members)})"

    def getValue(self, name: str) -> Any:
        first, rest = known(name)
        return getattr(self, first).getValue(rest) if rest else getattr(self, first)

    def setValue(self, name: str, value: Any) -> None:
        first, rest = known(name)
        if rest:
            getattr(self, first).setValue(rest, value)
        else:
            setattr(self, first, value)

    def dataType(name: str) -> Any:
        first, rest = known(name)
        type_ = members[first].unalteredType
        return plain_type(type_).dataType(rest) if rest else type_

    for function in (__init__, __setattr__, getValue, setValue):
        setattr(cls, function.__name__, function)
    for function in (__eq__, __repr__):
        if function.__name__ not in vars(cls):
            setattr(cls, function.__name__, function)
    cls.__hash__ = None
    cls.dataType = staticmethod(dataType)
    cls.allParameters = members
    cls._is_parameter_pack = True
    return cls


@parameterPack
class FloatRange:
    """Two numbers in order."""

    _minimum: float
    _maximum: float

    def __init__(self, minimum: float = 0, maximum: float = 0) -> None:
        self.setRange(minimum, maximum)

    def setRange(self, minimum: float, maximum: float) -> None:
        if not minimum <= maximum:
            raise ValueError(f"FloatRange must have minimum <= maximum: {minimum} <= {maximum}")
        self._minimum, self._maximum = minimum, maximum

    @property
    def minimum(self) -> float:
        return self._minimum

    @minimum.setter
    def minimum(self, value: float) -> None:
        self.setRange(value, self._maximum)

    @property
    def maximum(self) -> float:
        return self._maximum

    @maximum.setter
    def maximum(self, value: float) -> None:
        self.setRange(self._minimum, value)
