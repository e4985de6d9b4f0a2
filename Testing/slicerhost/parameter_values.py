"""How typed values lie in a parameter node: text parameters, node references, numbered containers.

Wrong types and values outside their range raise on writing, as in Slicer.
"""

import enum
from collections.abc import MutableMapping, MutableSequence
from typing import Any

import slicer

from slicerhost.parameter_annotations import IsInstance, NotNone, Validator

__all__ = [
    "DictValue",
    "EnumValue",
    "ListValue",
    "NodeValue",
    "NoneValue",
    "ObservedDict",
    "ObservedList",
    "PackValue",
    "PlainValue",
    "TupleValue",
    "UnionValue",
    "Value",
]


class Value:
    """Base of all: one text parameter."""

    default: Any = None

    def __init__(self, validators: list[Validator]) -> None:
        self.validators = validators

    def check(self, value: Any) -> None:
        for validator in self.validators:
            validator.validate(value)

    def is_in(self, node: Any, name: str) -> bool:
        return bool(node.HasParameter(name))

    def write(self, node: Any, name: str, value: Any) -> None:
        self.check(value)
        node.SetParameter(name, self.to_text(value))

    def read(self, node: Any, name: str) -> Any:
        return self.from_text(node.GetParameter(name))

    def remove(self, node: Any, name: str) -> None:
        node.UnsetParameter(name)

    def to_text(self, value: Any) -> str:
        return str(value)

    def from_text(self, text: str) -> Any:
        return text


class PlainValue(Value):
    def __init__(self, kind: type, validators: list[Validator]) -> None:
        accepted = (int, float) if kind is float else (kind,)
        super().__init__([NotNone(), IsInstance(*accepted), *validators])
        self.kind = kind
        self.default = 0 if kind in (int, float) else kind()

    def to_text(self, value: Any) -> str:
        if self.kind is bool:
            return "True" if value else "False"
        return str(value)

    def from_text(self, text: str) -> Any:
        return text == "True" if self.kind is bool else self.kind(text)


class EnumValue(Value):
    def __init__(self, kind: type[enum.Enum], validators: list[Validator]) -> None:
        super().__init__([NotNone(), IsInstance(kind), *validators])
        self.kind, self.default = kind, next(iter(kind))

    def to_text(self, value: enum.Enum) -> str:
        return value.name  # by name: renaming an item breaks saved scenes

    def from_text(self, text: str) -> enum.Enum:
        return self.kind[text]


class NodeValue(Value):
    def __init__(self, kind: type, validators: list[Validator]) -> None:
        super().__init__([IsInstance(kind), *validators])

    def write(self, node: Any, name: str, value: Any) -> None:
        self.check(value)
        node.SetParameter(name, "")  # says that it is there, also when it is None
        node.SetNodeReferenceID(name, value.GetID() if value is not None else None)

    def read(self, node: Any, name: str) -> Any:
        return node.GetNodeReference(name)

    def remove(self, node: Any, name: str) -> None:
        node.UnsetParameter(name)
        node.RemoveNodeReferenceIDs(name)


class NoneValue(Value):
    def check(self, value: Any) -> None:
        if value is not None:
            raise TypeError(f"Value must be None, is {value!r}")

    def from_text(self, text: str) -> None:
        return None


class ListValue(Value):
    def __init__(self, element: Value, validators: list[Validator]) -> None:
        super().__init__([NotNone(), *validators])
        self.element = element

    @property
    def default(self) -> list:
        return []

    def is_in(self, node: Any, name: str) -> bool:
        return bool(node.HasParameter(f"{name}_len"))

    def write(self, node: Any, name: str, values: Any) -> None:
        values = list(values)
        self.check(values)
        for value in values:
            self.element.check(value)
        with slicer.util.NodeModify(node):
            before = int(node.GetParameter(f"{name}_len") or 0)
            for index, value in enumerate(values):
                self.element.write(node, f"{name}_{index}", value)
            node.SetParameter(f"{name}_len", str(len(values)))
            for index in range(len(values), before):
                self.element.remove(node, f"{name}_{index}")

    def read(self, node: Any, name: str) -> "ObservedList":
        count = int(node.GetParameter(f"{name}_len") or 0)
        return ObservedList(self, node, name, [self.element.read(node, f"{name}_{i}") for i in range(count)])

    def remove(self, node: Any, name: str) -> None:
        with slicer.util.NodeModify(node):
            for index in range(int(node.GetParameter(f"{name}_len") or 0)):
                self.element.remove(node, f"{name}_{index}")
            node.UnsetParameter(f"{name}_len")


class TupleValue(Value):
    def __init__(self, elements: list[Value], validators: list[Validator]) -> None:
        super().__init__([NotNone(), *validators])
        self.elements = elements
        self.default = tuple(element.default for element in elements)

    def is_in(self, node: Any, name: str) -> bool:
        return self.elements[0].is_in(node, f"{name}_0")

    def write(self, node: Any, name: str, values: Any) -> None:
        values = tuple(values)
        if len(values) != len(self.elements):
            raise ValueError(f"Expected {len(self.elements)} values, got {len(values)}")
        with slicer.util.NodeModify(node):
            for index, (element, value) in enumerate(zip(self.elements, values, strict=True)):
                element.write(node, f"{name}_{index}", value)

    def read(self, node: Any, name: str) -> tuple:
        return tuple(element.read(node, f"{name}_{index}") for index, element in enumerate(self.elements))

    def remove(self, node: Any, name: str) -> None:
        for index, element in enumerate(self.elements):
            element.remove(node, f"{name}_{index}")


class DictValue(Value):
    def __init__(self, key: Value, value: Value, validators: list[Validator]) -> None:
        super().__init__([NotNone(), *validators])
        self.items = ListValue(TupleValue([key, value], []), [])

    @property
    def default(self) -> dict:
        return {}

    def is_in(self, node: Any, name: str) -> bool:
        return self.items.is_in(node, name)

    def write(self, node: Any, name: str, value: Any) -> None:
        self.check(value)
        self.items.write(node, name, list(value.items()))

    def read(self, node: Any, name: str) -> "ObservedDict":
        return ObservedDict(self, node, name, dict(iter(self.items.read(node, name))))

    def remove(self, node: Any, name: str) -> None:
        self.items.remove(node, name)


class UnionValue(Value):
    def __init__(self, choices: list[Value], validators: list[Validator]) -> None:
        super().__init__(validators)
        self.choices = choices
        optional = len(choices) == 2 and isinstance(choices[1], NoneValue)
        self.default = None if optional else choices[0].default

    def is_in(self, node: Any, name: str) -> bool:
        return any(choice.is_in(node, f"{name}_{index}") for index, choice in enumerate(self.choices))

    def _index_of(self, value: Any) -> int:
        refused: Exception | None = None
        for index, choice in enumerate(self.choices):
            if value is None and not isinstance(choice, NoneValue | NodeValue):
                continue
            if isinstance(value, bool) and not (isinstance(choice, PlainValue) and choice.kind is bool):
                continue  # a bool is an int to Python, not to Slicer
            try:
                choice.check(value)
                return index
            except TypeError:
                continue
            except ValueError as reason:  # the type fits, the value does not
                refused = reason
        raise refused or TypeError(f"None of the types takes {value!r}")

    def check(self, value: Any) -> None:
        super().check(value)
        self._index_of(value)

    def write(self, node: Any, name: str, value: Any) -> None:
        index = self._index_of(value)
        with slicer.util.NodeModify(node):
            self.remove(node, name)
            self.choices[index].write(node, f"{name}_{index}", value)

    def read(self, node: Any, name: str) -> Any:
        for index, choice in enumerate(self.choices):
            if choice.is_in(node, f"{name}_{index}"):
                return choice.read(node, f"{name}_{index}")
        return self.default

    def remove(self, node: Any, name: str) -> None:
        for index, choice in enumerate(self.choices):
            if choice.is_in(node, f"{name}_{index}"):
                choice.remove(node, f"{name}_{index}")


class PackValue(Value):
    def __init__(self, kind: type, validators: list[Validator]) -> None:
        super().__init__([NotNone(), IsInstance(kind), *validators])
        self.kind = kind

    @property
    def default(self) -> Any:
        return self.kind()

    def is_in(self, node: Any, name: str) -> bool:
        return all(member.value.is_in(node, f"{name}.{key}") for key, member in self.kind.allParameters.items())

    def write(self, node: Any, name: str, pack: Any) -> None:
        self.check(pack)
        with slicer.util.NodeModify(node):
            for key, member in self.kind.allParameters.items():
                member.value.write(node, f"{name}.{key}", getattr(pack, key))

    def read(self, node: Any, name: str) -> Any:
        members = {key: member.value.read(node, f"{name}.{key}") for key, member in self.kind.allParameters.items()}
        pack = self.kind()
        for key, value in members.items():
            setattr(pack, key, value)
        object.__setattr__(pack, "_home", (node, name))
        return pack

    def remove(self, node: Any, name: str) -> None:
        for key, member in self.kind.allParameters.items():
            member.value.remove(node, f"{name}.{key}")


class ObservedList(MutableSequence):
    """A list that writes itself back when it is changed; like Slicer's it cannot be added to others."""

    def __init__(self, value: ListValue, node: Any, name: str, items: list) -> None:
        self._value, self._node, self._name, self._items = value, node, name, items

    def _save(self) -> None:
        try:
            self._value.write(self._node, self._name, self._items)
        finally:
            self._items = self._value.read(self._node, self._name)._items

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]

    def __setitem__(self, index: Any, item: Any) -> None:
        self._items[index] = item
        self._save()

    def __delitem__(self, index: Any) -> None:
        del self._items[index]
        self._save()

    def insert(self, index: int, item: Any) -> None:
        self._items.insert(index, item)
        self._save()

    def clear(self) -> None:
        self._items.clear()
        self._save()

    def __imul__(self, times: int) -> "ObservedList":
        self._items *= times
        self._save()
        return self

    def sort(self, **options: Any) -> None:
        self._items.sort(**options)
        self._save()

    def extend(self, items: Any) -> None:
        self._items.extend(items)
        self._save()

    def __eq__(self, other: Any) -> bool:
        return self._items == (other._items if isinstance(other, ObservedList) else other)

    __hash__ = None

    def __repr__(self) -> str:
        return f"ObservedList({self._items})"


class ObservedDict(MutableMapping):
    """A dictionary that writes itself back when it is changed."""

    def __init__(self, value: DictValue, node: Any, name: str, items: dict) -> None:
        self._value, self._node, self._name, self._items = value, node, name, items

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Any:
        return iter(self._items)

    def __getitem__(self, key: Any) -> Any:
        return self._items[key]

    def __setitem__(self, key: Any, item: Any) -> None:
        self._value.write(self._node, self._name, {**self._items, key: item})
        self._items[key] = item

    def get(self, key: Any) -> Any:  # Slicer's takes no default
        return self._items.get(key)

    def pop(self, key: Any) -> Any:  # nor does this
        item = self._items[key]
        del self[key]
        return item

    def popitem(self) -> tuple[Any, Any]:
        if not self._items:
            raise KeyError("The dictionary is empty")
        key = next(reversed(self._items))
        return key, self.pop(key)

    def __delitem__(self, key: Any) -> None:
        del self._items[key]
        self._value.write(self._node, self._name, self._items)

    def __repr__(self) -> str:
        return f"ObservedDict({self._items})"
