# ruff: noqa: N801, N802, N815 - the names are those of Slicer and Qt
"""Stand-ins for the ctk widgets that scripted modules use, with what PythonQt shows of them and no more.

PythonQt sees properties, slots, invokable methods and signals: ``ctkSliderWidget`` has ``.minimum``, no
``setMinimum()``. So have these.
"""

import sys
import types

from PySide6 import QtWidgets
from PySide6.QtCore import Property, Slot

from slicerhost.ctk_folding import ctkCollapsibleButton, ctkCollapsibleGroupBox
from slicerhost.ctk_numbers import ctkDoubleSpinBox, ctkRangeWidget, ctkSliderWidget
from slicerhost.ctk_paths import ctkDirectoryButton, ctkPathLineEdit
from slicerhost.qtpatch import HostClass

__all__ = ["CTK_CLASSES", "make_ctk_module"]


class ctkMessageBox(HostClass, QtWidgets.QMessageBox):
    """A message box that remembers "do not show again"."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        QtWidgets.QMessageBox.__init__(self, parent)
        self._key = ""

    def _set_key(self, key: str) -> None:
        self._key = key

    dontShowAgainSettingsKey = Property(str, lambda self: self._key, _set_key)


class ctkComboBox(HostClass, QtWidgets.QComboBox):
    """A combo box with a text for "nothing chosen"."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        QtWidgets.QComboBox.__init__(self, parent)
        self._default_text = ""

    def _set_default_text(self, text: str) -> None:
        self._default_text = text
        self.setPlaceholderText(text)

    defaultText = Property(str, lambda self: self._default_text, _set_default_text)


class ctkCheckBox(HostClass, QtWidgets.QCheckBox):
    """A check box."""


class ctkFittedTextBrowser(HostClass, QtWidgets.QTextBrowser):
    """A text browser as high as its text."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        QtWidgets.QTextBrowser.__init__(self, parent)
        self._collapsible_text, self._collapsed = "", True

    @Slot(str)
    def setCollapsibleText(self, text: str) -> None:
        self._collapsible_text = text
        self.setHtml(text)

    def _set_collapsed(self, collapsed: bool) -> None:
        self._collapsed = collapsed

    collapsibleText = Property(str, lambda self: self._collapsible_text, setCollapsibleText)
    collapsed = Property(bool, lambda self: self._collapsed, _set_collapsed)


CTK_CLASSES = (
    ctkCheckBox,
    ctkCollapsibleButton,
    ctkCollapsibleGroupBox,
    ctkComboBox,
    ctkDirectoryButton,
    ctkDoubleSpinBox,
    ctkFittedTextBrowser,
    ctkMessageBox,
    ctkPathLineEdit,
    ctkRangeWidget,
    ctkSliderWidget,
)


def make_ctk_module() -> types.ModuleType:
    """The ``ctk`` module, also put into ``sys.modules``."""
    ctk = sys.modules["ctk"] = types.ModuleType("ctk", "The part of CTK that the host stands in for")
    for each in CTK_CLASSES:
        setattr(ctk, each.__name__, each)
    return ctk
