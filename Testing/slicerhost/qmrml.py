# ruff: noqa: N801, N802, N815, RUF012 - the names are those of Slicer and Qt
"""Stand-ins for Slicer's MRML widgets, with what PythonQt shows of them and no more.

``qMRMLNodeComboBox`` is a QWidget and no QComboBox (no ``count``, no ``itemText``); lists come back as tuples.
"""

from typing import Any

from PySide6 import QtWidgets
from PySide6.QtCore import Property, Signal

from slicerhost.qmrml_nodes import qMRMLCheckableNodeComboBox, qMRMLNodeComboBox
from slicerhost.qmrml_segments import qMRMLSegmentEditorWidget, qMRMLSegmentSelectorWidget, qMRMLSegmentsTableView
from slicerhost.qtpatch import HostClass

__all__ = ["QMRML_CLASSES", "qMRMLWidget"]


class qMRMLWidget(HostClass, QtWidgets.QWidget):
    """A widget that knows the scene and tells its children."""

    mrmlSceneChanged = Signal(object)
    _signatures = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        QtWidgets.QWidget.__init__(self, parent)
        self._scene = None
        self._entered = False

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)

    isEntered = Property(bool, lambda self: self._entered)


QMRML_CLASSES = (
    qMRMLWidget,
    qMRMLNodeComboBox,
    qMRMLCheckableNodeComboBox,
    qMRMLSegmentSelectorWidget,
    qMRMLSegmentsTableView,
    qMRMLSegmentEditorWidget,
)
