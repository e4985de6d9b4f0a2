"""How parameters and widgets are tied: the part of ``slicer.parameterNodeWrapper`` that knows Qt.

The widget class must be exactly the one that Slicer ties to the type; a subclass is not accepted there either.
"""

import enum
import logging
import pathlib
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ctk
import qt
import slicer

from slicerhost.parameter_annotations import (
    Choice,
    Decimals,
    Maximum,
    Minimum,
    RangeBounds,
    SingleStep,
    WithinRange,
    find_annotation,
    plain_type,
)
from slicerhost.parameter_types import FloatRange

__all__ = ["Connector", "connect"]

_COMBO_BOXES = (qt.QComboBox, ctk.ctkComboBox)


@dataclass
class Connector:
    """A widget tied to a parameter: how it is read and written, and which signal says that it changed."""

    widget: Any
    read: Callable[[], Any]
    write: Callable[[Any], None]
    signal: Any
    callback: Callable[[], None] | None = None

    def listen(self, callback: Callable[[], None] | None) -> None:
        if self.callback is not None and self.signal is not None:
            self.signal.disconnect(self._changed)
        self.callback = callback
        if callback is not None and self.signal is not None:
            self.signal.connect(self._changed)

    def _changed(self, *_: Any) -> None:
        if self.callback is not None:
            self.callback()


def connect(widget: Any, type_: Any) -> Connector:
    """Tie a widget to a type.

    Raises:
        RuntimeError: Where Slicer has no connector for the two.
    """
    kind, exact = plain_type(type_), type(widget)
    if kind is bool and exact in (qt.QCheckBox, ctk.ctkCheckBox):
        return _property(widget, "checked", widget.toggled)
    if kind is bool and exact is qt.QPushButton:
        if not widget.checkable:
            logging.warning(f"Making push button {widget.name} checkable to show a bool")
            widget.checkable = True
        return _property(widget, "checked", widget.toggled)
    if kind is int and exact in (qt.QSlider, qt.QSpinBox):
        _bound(widget, type_, -(2**31), 2**31 - 1, must_be_bounded=exact is qt.QSlider)
        return _property(widget, "value", widget.valueChanged)
    if kind in (float, int) and exact in (qt.QDoubleSpinBox, ctk.ctkSliderWidget, ctk.ctkDoubleSpinBox):
        _bound(widget, type_, float("-inf"), float("inf"), must_be_bounded=exact is ctk.ctkSliderWidget)
        if kind is int:
            widget.decimals = 0
        return Connector(
            widget, lambda: kind(widget.value), lambda value: setattr(widget, "value", value), widget.valueChanged
        )
    if kind in (int, float, str, bool) and exact in _COMBO_BOXES:
        choice = find_annotation(type_, Choice)
        if choice is None:
            raise RuntimeError("A combo box needs the Choice annotation")
        return _combo(widget, [(str(each), each) for each in choice.choices])
    if isinstance(kind, type) and issubclass(kind, enum.Enum) and exact in _COMBO_BOXES:
        label = getattr(kind, "label", lambda each: each.name)
        return _combo(widget, [(label(each), each) for each in kind])
    if kind is str and exact is qt.QLineEdit:
        return _property(widget, "text", widget.textChanged)
    if kind is str and exact is qt.QLabel:
        return Connector(widget, lambda: widget.text, widget.setText, None)
    if kind is FloatRange and exact is ctk.ctkRangeWidget:
        bounds = find_annotation(type_, RangeBounds)
        if bounds is None:
            raise RuntimeError("A range widget needs the RangeBounds annotation")
        widget.setRange(bounds.minimum, bounds.maximum)
        return Connector(
            widget,
            lambda: FloatRange(widget.minimumValue, widget.maximumValue),
            lambda value: widget.setValues(value.minimum, value.maximum),
            widget.valuesChanged,
        )
    if kind is str and exact is qt.QTextEdit:
        return Connector(widget, widget.toPlainText, widget.setPlainText, widget.textChanged)
    if isinstance(kind, type) and issubclass(kind, pathlib.PurePath):
        names = {ctk.ctkPathLineEdit: ("currentPath", "Changed"), ctk.ctkDirectoryButton: ("directory", "Changed")}
        if exact in names:
            name, changed = names[exact]
            signal = getattr(widget, name + changed)
            return Connector(
                widget, lambda: kind(getattr(widget, name)), lambda path: setattr(widget, name, str(path)), signal
            )
    classes = _node_classes(kind)
    if classes and exact is slicer.qMRMLNodeComboBox:
        widget.nodeTypes = classes
        return Connector(widget, widget.currentNode, widget.setCurrentNode, widget.currentNodeChanged)
    raise RuntimeError(f"Unable to create GUI connector from datatype '{type_}' to widget type '{exact}'")


def _property(widget: Any, name: str, signal: Any) -> Connector:
    return Connector(widget, lambda: getattr(widget, name), lambda value: setattr(widget, name, value), signal)


def _combo(widget: Any, entries: list[tuple[str, Any]]) -> Connector:
    widget.clear()
    for text, _ in entries:
        widget.addItem(text)

    def write(value: Any) -> None:
        found = [index for index, (_, each) in enumerate(entries) if each == value]
        if not found:
            raise ValueError(f"{value!r} is not among {[each for _, each in entries]}")
        widget.currentIndex = found[0]

    return Connector(widget, lambda: entries[widget.currentIndex][1], write, widget.currentIndexChanged)


def _bound(widget: Any, type_: Any, lowest: float, highest: float, *, must_be_bounded: bool) -> None:
    decimals, step = find_annotation(type_, Decimals), find_annotation(type_, SingleStep)
    if decimals is not None:
        widget.decimals = decimals.value
    if step is not None:
        widget.singleStep = step.value
    within = find_annotation(type_, WithinRange)
    low = within or find_annotation(type_, Minimum)
    high = within or find_annotation(type_, Maximum)
    if must_be_bounded and not (low and high):
        raise RuntimeError(f"{type(widget).__name__} needs a number with a range")
    widget.minimum = low.minimum if low else lowest
    widget.maximum = high.maximum if high else highest


def _node_classes(kind: Any) -> list[str]:
    arguments = [each for each in typing.get_args(kind) if each is not type(None)] or [kind]
    nodes = [isinstance(each, type) and issubclass(each, slicer.vtkMRMLNode) for each in arguments]
    return [each.__name__ for each in arguments] if all(nodes) else []
