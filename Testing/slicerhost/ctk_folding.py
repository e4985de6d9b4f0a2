# ruff: noqa: N801, N802, N815 - the names are those of Slicer and Qt
"""ctk widgets that fold their contents away."""

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Qt, Signal

from slicerhost.qtpatch import HostClass

__all__ = ["ctkCollapsibleButton", "ctkCollapsibleGroupBox"]


class ctkCollapsibleButton(HostClass, QtWidgets.QAbstractButton):
    """A button with a title line; its children show while it is not collapsed."""

    contentsCollapsed = Signal(bool)

    def __init__(self, text: str | QtWidgets.QWidget = "", parent: QtWidgets.QWidget | None = None) -> None:
        if isinstance(text, QtWidgets.QWidget):
            text, parent = "", text
        QtWidgets.QAbstractButton.__init__(self, parent)
        self._collapsed = False
        self._flat = False
        self._hidden: list[QtWidgets.QWidget] = []
        self.setText(text)
        self.setCheckable(True)
        self.setChecked(True)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Preferred, QtWidgets.QSizePolicy.Policy.Preferred)
        self.toggled.connect(lambda checked: self._collapse(not checked))
        self._margins()

    def _title_height(self) -> int:
        return self.fontMetrics().height() + 10

    def _margins(self) -> None:
        self.setContentsMargins(0, self._title_height(), 0, 0)

    def _collapse(self, collapsed: bool) -> None:
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        if collapsed:
            self._hide_children()
        else:
            for child in self._hidden:
                child.setVisible(True)
            self._hidden = []
        self.setMaximumHeight(self._title_height() if collapsed else 16777215)
        self.updateGeometry()
        self.contentsCollapsed.emit(collapsed)

    def _hide_children(self) -> None:
        """Hide those that nobody else has hidden. Not in childEvent: there a child is still being constructed, and
        a Python wrapper made of it would say QWidget for ever."""
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget) and not _hidden_on_purpose(child):
                child.setVisible(False)
                self._hidden.append(child)

    def event(self, event: QtCore.QEvent) -> bool:
        if self._collapsed and event.type() in (QtCore.QEvent.Type.LayoutRequest, QtCore.QEvent.Type.Show):
            self._hide_children()
        return QtWidgets.QAbstractButton.event(self, event)

    def sizeHint(self) -> QtCore.QSize:
        own = QtCore.QSize(self.fontMetrics().horizontalAdvance(self.text) + 40, self._title_height())
        layout = self.layout()
        return own if self._collapsed or layout is None else layout.totalSizeHint().expandedTo(own)

    def minimumSizeHint(self) -> QtCore.QSize:
        layout = self.layout()
        own = QtCore.QSize(60, self._title_height())
        return own if self._collapsed or layout is None else layout.totalMinimumSize().expandedTo(own)

    def hitButton(self, position: QtCore.QPoint) -> bool:
        return position.y() <= self._title_height()

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtWidgets.QStylePainter(self)
        bar = QtCore.QRect(0, 0, self.width, self._title_height())
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = bar
        option.features = QtWidgets.QStyleOptionButton.ButtonFeature(0)
        painter.drawControl(QtWidgets.QStyle.ControlElement.CE_PushButtonBevel, option)
        arrow = QtWidgets.QStyleOption()
        arrow.initFrom(self)
        arrow.rect = QtCore.QRect(8, bar.center().y() - 5, 11, 11)
        element = QtWidgets.QStyle.PrimitiveElement
        shape = element.PE_IndicatorArrowRight if self._collapsed else element.PE_IndicatorArrowDown
        painter.drawPrimitive(shape, arrow)
        flags = Qt.AlignmentFlag.AlignVCenter | Qt.TextFlag.TextShowMnemonic
        painter.drawText(bar.adjusted(28, 0, -4, 0), flags, self.text)

    def _set_collapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    def _set_flat(self, flat: bool) -> None:
        self._flat = flat

    collapsed = Property(bool, lambda self: self._collapsed, _set_collapsed)
    flat = Property(bool, lambda self: self._flat, _set_flat)


class ctkCollapsibleGroupBox(HostClass, QtWidgets.QGroupBox):
    """A group box whose check mark folds it."""

    def __init__(self, title: str | QtWidgets.QWidget = "", parent: QtWidgets.QWidget | None = None) -> None:
        if isinstance(title, QtWidgets.QWidget):
            title, parent = "", title
        QtWidgets.QGroupBox.__init__(self, title, parent)
        self.setCheckable(True)
        self.toggled.connect(self._show_children)

    def _show_children(self, shown: bool) -> None:
        for child in self.children():
            if isinstance(child, QtWidgets.QWidget):
                child.setVisible(shown)
        self.setMaximumHeight(16777215 if shown else self.fontMetrics().height() + 12)

    def event(self, event: QtCore.QEvent) -> bool:
        if not self.isChecked() and event.type() in (QtCore.QEvent.Type.LayoutRequest, QtCore.QEvent.Type.Show):
            self._show_children(False)
        return QtWidgets.QGroupBox.event(self, event)

    def _set_collapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    collapsed = Property(bool, lambda self: not self.isChecked(), _set_collapsed)


def _hidden_on_purpose(widget: QtWidgets.QWidget) -> bool:
    """Hidden by a call; widgets that were never shown are hidden, too, but appear with their parent."""
    return widget.isHidden() and widget.testAttribute(Qt.WidgetAttribute.WA_WState_ExplicitShowHide)
