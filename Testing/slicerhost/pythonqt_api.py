"""What PythonQt shows of a widget class: which names are values, which are methods, which are signals."""

from functools import cache
from typing import Any

from PySide6 import QtCore, QtGui, QtWidgets

from slicerhost import qtpatch

__all__ = ["ENUM_CLASSES", "class_named", "kind_of"]


@cache
def class_named(name: str) -> type | None:
    """A class by its last name, such as ``QPushButton``, ``ctkSliderWidget`` or ``qMRMLNodeComboBox``."""
    qtpatch.patch()
    for module in (QtWidgets, QtCore, QtGui):
        if isinstance(found := getattr(module, name, None), type):
            return found
    if name.startswith("ctk"):
        from slicerhost.ctk import CTK_CLASSES

        return next((each for each in CTK_CLASSES if each.__name__ == name), None)
    if name.startswith("qMRML"):
        from slicerhost.qmrml import QMRML_CLASSES

        return next((each for each in QMRML_CLASSES if each.__name__ == name), None)
    return None


def kind_of(cls: type, name: str) -> str | None:
    """``value``, ``method``, ``signal``, ``other`` (enum members and the like) or None where there is no such name."""
    if name in ("name",):
        return "value"
    member = _member(cls, name)
    if member is None:
        return None
    if isinstance(member, qtpatch._PropertyAsValue | QtCore.Property):
        return "value"
    if isinstance(member, QtCore.Signal):
        return "signal"
    return "method" if callable(member) else "other"


def _member(cls: type, name: str) -> Any:
    return next((base.__dict__[name] for base in cls.__mro__ if name in base.__dict__), None)


@cache
def _enum_classes() -> frozenset[str]:
    import enum

    names = set()
    for module in (QtCore, QtGui, QtWidgets):
        for class_name in dir(module):
            cls = getattr(module, class_name)
            if isinstance(cls, type):
                names |= {key for key, each in vars(cls).items() if isinstance(each, enum.EnumType)}
    return frozenset(names)


class _EnumClasses:
    def __contains__(self, name: str) -> bool:
        return name in _enum_classes()


ENUM_CLASSES = _EnumClasses()
"""Names of Qt's enum classes: PythonQt knows their members only, ``Qt.AlignLeft``."""
