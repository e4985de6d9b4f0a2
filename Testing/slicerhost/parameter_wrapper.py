# ruff: noqa: N802, N815 - the names are those of Slicer and Qt
"""``@parameterNodeWrapper``: a class with typed members over a parameter node, tied to widgets by name."""

import sys
import types
from typing import Any

import qt
import slicer
import vtk

from slicerhost import parameter_annotations
from slicerhost.parameter_annotations import Default, plain_type
from slicerhost.parameter_gui import Connector, connect
from slicerhost.parameter_types import FloatRange, Member, isParameterPack, members_of, parameterPack

__all__ = ["make_parameter_node_wrapper_module", "parameterNodeWrapper"]

_RESERVED = (
    "allParameters",
    "connectGui",
    "connectParametersToGui",
    "dataType",
    "default",
    "disconnectGui",
    "getValue",
    "isCached",
    "setValue",
    "AddObserver",
    "EndModify",
    "Modified",
    "RemoveObserver",
    "StartModify",
)


class _Wrapper:
    """What every wrapper can do."""

    allParameters: dict[str, Member]
    _is_parameter_node_wrapper = True

    def __init__(self, parameterNode: Any, prefix: str | None = None) -> None:
        self.parameterNode = parameterNode
        self._prefix = prefix or ""
        self._tied: dict[int, tuple[dict[str, Connector], int]] = {}
        self._next_tag = 0
        self._updating = False
        for name, member in self.allParameters.items():
            if not member.value.is_in(parameterNode, self._prefix + name):
                member.value.write(parameterNode, self._prefix + name, member.default.value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.allParameters and not name.startswith("_") and name != "parameterNode":
            raise AttributeError(f"{type(self).__name__} has no parameter {name}")  # Slicer would take a typo
        object.__setattr__(self, name, value)

    def getValue(self, name: str) -> Any:
        self._check(name)
        first, _, rest = name.partition(".")
        return getattr(self, first).getValue(rest) if rest else getattr(self, first)

    def setValue(self, name: str, value: Any) -> None:
        self._check(name)
        first, _, rest = name.partition(".")
        if rest:
            getattr(self, first).setValue(rest, value)
        else:
            setattr(self, first, value)

    def default(self, name: str) -> Default:
        self._check(name)
        return self.allParameters[name].default

    def isCached(self, name: str) -> bool:
        self._check(name)
        return not isParameterPack(plain_type(self.allParameters[name].unalteredType))

    @classmethod
    def dataType(cls, name: str) -> Any:
        first, _, rest = name.partition(".")
        if first not in cls.allParameters:
            raise ValueError(f"Cannot find a param with the given name: {first}")
        type_ = cls.allParameters[first].unalteredType
        return plain_type(type_).dataType(rest) if rest else type_

    def connectGui(self, gui: Any) -> int:
        """Tie every widget that has a SlicerParameterName; returns the tag that ``disconnectGui`` takes."""
        widgets = gui.findChildren(qt.QWidget) if isinstance(gui, qt.QWidget) else list(vars(gui).values())
        named = {}
        for widget in widgets:
            name = widget.property("SlicerParameterName") if isinstance(widget, qt.QObject) else None
            if name:
                named[name] = widget
        return self.connectParametersToGui(named)

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        for name in mapping:
            self._check(name)
        connectors = {name: connect(widget, self.dataType(name)) for name, widget in mapping.items()}
        self._next_tag += 1
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.listen(lambda name=name, connector=connector: self._from_widget(name, connector))
        observer = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._update_widgets())
        self._tied[self._next_tag] = (connectors, observer)
        return self._next_tag

    def disconnectGui(self, tag: int) -> None:
        connectors, observer = self._tied.pop(tag, ({}, None))
        for connector in connectors.values():
            connector.listen(None)
        if observer is not None:
            self.RemoveObserver(observer)

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, was_modifying: int) -> None:
        self.parameterNode.EndModify(was_modifying)

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        self.parameterNode.Modified()

    def _check(self, name: str) -> None:
        self.dataType(name)

    def _from_widget(self, name: str, connector: Connector) -> None:
        if not self._updating:
            with slicer.util.NodeModify(self):
                self.setValue(name, connector.read())

    def _update_widgets(self) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            for connectors, _ in self._tied.values():
                for name, connector in connectors.items():
                    connector.write(self.getValue(name))
        finally:
            self._updating = False


def parameterNodeWrapper(cls: type | None = None) -> Any:
    """Class decorator, with or without brackets."""
    if cls is None:
        return parameterNodeWrapper
    members = members_of(cls)
    for name in members:
        if name in _RESERVED:
            raise ValueError(f"Cannot use reserved name '{name}' in a parameterNodeWrapper")
    content = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    content.update({name: _parameter(name, member) for name, member in members.items()})
    content["allParameters"] = members
    return type(cls.__name__, (_Wrapper,), content)


def _parameter(name: str, member: Member) -> property:
    def read(self: _Wrapper) -> Any:
        if not member.value.is_in(self.parameterNode, self._prefix + name):
            member.value.write(self.parameterNode, self._prefix + name, member.default.value)
        return member.value.read(self.parameterNode, self._prefix + name)

    def write(self: _Wrapper, value: Any) -> None:
        member.value.write(self.parameterNode, self._prefix + name, value)

    return property(read, write)


def make_parameter_node_wrapper_module() -> types.ModuleType:
    """The module, also put into ``sys.modules``."""
    name = "slicer.parameterNodeWrapper"
    module = sys.modules[name] = types.ModuleType(name)
    for each in (
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
    ):
        setattr(module, each, getattr(parameter_annotations, each))
    module.parameterNodeWrapper = parameterNodeWrapper
    module.parameterPack, module.isParameterPack, module.FloatRange = parameterPack, isParameterPack, FloatRange
    module.isParameterNodeWrapper = lambda each: getattr(each, "_is_parameter_node_wrapper", False)
    module.SlicerParameterNamePropertyName = "SlicerParameterName"
    return module
