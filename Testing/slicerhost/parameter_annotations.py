"""What annotates a parameter's type: ranges, choices, defaults, and how widgets show it."""

import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Choice",
    "Decimals",
    "Default",
    "Exclude",
    "IsInstance",
    "Maximum",
    "Minimum",
    "NotNone",
    "RangeBounds",
    "SingleStep",
    "Validator",
    "WithinRange",
    "annotations_of",
    "find_annotation",
    "plain_type",
    "validators_of",
]


class Validator:
    """Something that refuses values."""

    def validate(self, value: Any) -> None:
        raise NotImplementedError


class NotNone(Validator):
    def validate(self, value: Any) -> None:
        if value is None:
            raise ValueError("Value must not be None")


class IsInstance(Validator):
    def __init__(self, *classes: Any) -> None:
        self.classes = tuple(classes[0]) if classes and isinstance(classes[0], tuple | list) else classes

    def validate(self, value: Any) -> None:
        if value is not None and not isinstance(value, self.classes):
            names = " or ".join(each.__name__ for each in self.classes)
            raise TypeError(f"Value must be {names}, is {type(value).__name__} ({value!r})")


@dataclass(frozen=True)
class WithinRange(Validator):
    minimum: float
    maximum: float

    def validate(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within [{self.minimum}, {self.maximum}], is {value}")


@dataclass(frozen=True)
class Minimum(Validator):
    minimum: float

    def validate(self, value: Any) -> None:
        if value < self.minimum:
            raise ValueError(f"Value must be at least {self.minimum}, is {value}")


@dataclass(frozen=True)
class Maximum(Validator):
    maximum: float

    def validate(self, value: Any) -> None:
        if value > self.maximum:
            raise ValueError(f"Value must be at most {self.maximum}, is {value}")


class Choice(Validator):
    def __init__(self, choices: Any) -> None:
        self.choices = list(choices)

    def validate(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"Value must be one of {self.choices}, is {value!r}")


class Exclude(Validator):
    def __init__(self, excludedValues: Any) -> None:
        self.values = list(excludedValues)

    def validate(self, value: Any) -> None:
        if value in self.values:
            raise ValueError(f"Value must not be {value!r}")


@dataclass(frozen=True)
class RangeBounds(Validator):
    """Bounds of a FloatRange."""

    minimum: float
    maximum: float

    def validate(self, value: Any) -> None:
        low, high = (value.minimum, value.maximum) if hasattr(value, "minimum") else (value, value)
        if not self.minimum <= low <= high <= self.maximum:
            raise ValueError(f"Range must be within [{self.minimum}, {self.maximum}], is [{low}, {high}]")


@dataclass(frozen=True)
class Default:
    constant: Any = None
    generator: Callable[[], Any] | None = None

    @property
    def value(self) -> Any:
        return self.generator() if self.generator is not None else self.constant


@dataclass(frozen=True)
class Decimals:
    value: int


@dataclass(frozen=True)
class SingleStep:
    value: float


def plain_type(type_: Any) -> Any:
    """A type without its annotations."""
    return typing.get_args(type_)[0] if typing.get_origin(type_) is typing.Annotated else type_


def annotations_of(type_: Any) -> list[Any]:
    """The annotations of an annotated type."""
    return list(type_.__metadata__) if typing.get_origin(type_) is typing.Annotated else []


def validators_of(type_: Any) -> list[Any]:
    """The annotations that refuse values: objects, or classes whose ``validate`` is static."""
    return [
        each
        for each in annotations_of(type_)
        if isinstance(each, Validator) or (isinstance(each, type) and issubclass(each, Validator))
    ]


def find_annotation(type_: Any, kind: type) -> Any:
    """The first annotation of a kind, or None."""
    return next((each for each in annotations_of(type_) if isinstance(each, kind)), None)
