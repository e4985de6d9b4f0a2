# ruff: noqa: N801, N802, N805, N815, RUF012 - the names are those of Slicer and Qt
"""Slicer's widgets for the segments of a segmentation."""

from typing import Any

import slicer
from PySide6 import QtGui, QtWidgets
from PySide6.QtCore import Property, Qt, Signal, Slot

from slicerhost.qmrml_nodes import qMRMLNodeComboBox
from slicerhost.qtpatch import HostClass

__all__ = ["qMRMLSegmentEditorWidget", "qMRMLSegmentSelectorWidget", "qMRMLSegmentsTableView"]


class qMRMLSegmentSelectorWidget(HostClass, QtWidgets.QWidget):
    """Chooses a segmentation and one or several of its segments."""

    currentNodeChanged = Signal(object)
    currentSegmentChanged = Signal(str)
    segmentSelectionChanged = Signal("QStringList")
    _signatures = {"currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged"}

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        QtWidgets.QWidget.__init__(self, parent)
        self._multi = False
        self._horizontal = True
        self._none = False
        self._tags: list[tuple[Any, int]] = []
        self._nodes_box = qMRMLNodeComboBox(self)
        self._nodes_box.nodeTypes = ["vtkMRMLSegmentationNode"]
        self._nodes_box.addEnabled = False
        self._nodes_box.removeEnabled = False
        self._nodes_box.noneEnabled = True
        self._segments_list = QtWidgets.QListWidget(self)
        self._segments_list.setMaximumHeight(80)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._nodes_box)
        layout.addWidget(self._segments_list)
        self._nodes_box.currentNodeChanged.connect(self._node_changed)
        self._segments_list.itemSelectionChanged.connect(self._selection_changed)
        tags = self._tags
        self.destroyed.connect(lambda *_: [observed.RemoveObserver(tag) for observed, tag in tags])

    def setMRMLScene(self, scene: Any) -> None:
        self._nodes_box.setMRMLScene(scene)

    def mrmlScene(self) -> Any:
        return self._nodes_box.mrmlScene()

    def currentNode(self) -> Any:
        return self._nodes_box.currentNode()

    def setCurrentNode(self, node: Any) -> None:
        self._nodes_box.setCurrentNode(node)

    def currentNodeID(self) -> str:
        return self._nodes_box.currentNodeID

    def setCurrentNodeID(self, identifier: str) -> None:
        self._nodes_box.setCurrentNodeID(identifier)

    def currentSegmentID(self) -> str:
        return next(iter(self.selectedSegmentIDs()), "")

    def setCurrentSegmentID(self, identifier: str) -> None:
        self.setSelectedSegmentIDs([identifier] if identifier else [])

    def selectedSegmentIDs(self) -> tuple[str, ...]:
        return tuple(item.data(Qt.ItemDataRole.UserRole) for item in self._segments_list.selectedItems())

    def setSelectedSegmentIDs(self, identifiers: list[str]) -> None:
        for index in range(self._segments_list.count):
            item = self._segments_list.item(index)
            item.setSelected(item.data(Qt.ItemDataRole.UserRole) in identifiers)

    def segmentIDs(self) -> tuple[str, ...]:
        items = [self._segments_list.item(index) for index in range(self._segments_list.count)]
        return tuple(item.data(Qt.ItemDataRole.UserRole) for item in items)

    def _node_changed(self, node: Any) -> None:
        for observed, tag in self._tags:
            observed.RemoveObserver(tag)
        self._tags[:] = []
        if node is not None:
            kind = slicer.vtkSegmentation
            segmentation = node.GetSegmentation()
            for event in (kind.SegmentAdded, kind.SegmentRemoved, kind.SegmentModified):
                self._tags.append((segmentation, segmentation.AddObserver(event, lambda *_: self._refill())))
        self._refill()
        self.currentNodeChanged.emit(node)

    def _refill(self) -> None:
        chosen = self.selectedSegmentIDs()
        self._segments_list.blockSignals(True)
        self._segments_list.clear()
        for identifier, segment in _segments(self.currentNode()):
            item = QtWidgets.QListWidgetItem(segment.GetName(), self._segments_list)
            item.setData(Qt.ItemDataRole.UserRole, identifier)
            item.setSelected(identifier in chosen)
        self._segments_list.blockSignals(False)
        if chosen != self.selectedSegmentIDs():
            self._selection_changed()

    def _selection_changed(self) -> None:
        self.currentSegmentChanged.emit(self.currentSegmentID())
        self.segmentSelectionChanged.emit(list(self.selectedSegmentIDs()))

    def _set_multi(self, multi: bool) -> None:
        self._multi = multi
        mode = QtWidgets.QAbstractItemView.SelectionMode
        self._segments_list.setSelectionMode(mode.MultiSelection if multi else mode.SingleSelection)

    def _set_none(self, none: bool) -> None:
        self._none = none

    def _set_horizontal(self, horizontal: bool) -> None:
        self._horizontal = horizontal

    def _set_selector_visible(self, visible: bool) -> None:
        self._nodes_box.setVisible(visible)

    multiSelection = Property(bool, lambda self: self._multi, _set_multi)
    noneEnabled = Property(bool, lambda self: self._none, _set_none)
    horizontalLayout = Property(bool, lambda self: self._horizontal, _set_horizontal)
    segmentationNodeSelectorVisible = Property(bool, lambda self: not self._nodes_box.isHidden(), _set_selector_visible)


class qMRMLSegmentsTableView(HostClass, QtWidgets.QWidget):
    """A table of a segmentation's segments."""

    selectionChanged = Signal(object, object)
    _signatures = {"selectionChanged(QItemSelection,QItemSelection)": "selectionChanged"}

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        QtWidgets.QWidget.__init__(self, parent)
        self._node: Any = None
        self._flags = {
            "headerVisible": True,
            "visibilityColumnVisible": True,
            "colorColumnVisible": True,
            "opacityColumnVisible": False,
            "statusColumnVisible": False,
            "readOnly": False,
            "filterBarVisible": False,
        }
        self._tags: list[tuple[Any, int]] = []
        self._table = QtWidgets.QTableWidget(0, 2, self)
        self._table.setHorizontalHeaderLabels(["Color", "Name"])
        self._table.horizontalHeader().setStretchLastSection(True)
        self._table.setSelectionBehavior(QtWidgets.QAbstractItemView.SelectionBehavior.SelectRows)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._table)
        self._table.itemSelectionChanged.connect(lambda: self.selectionChanged.emit(None, None))
        tags = self._tags
        self.destroyed.connect(lambda *_: [observed.RemoveObserver(tag) for observed, tag in tags])

    def setMRMLScene(self, scene: Any) -> None:
        if scene is None:
            self.setSegmentationNode(None)

    def segmentationNode(self) -> Any:
        return self._node

    def setSegmentationNode(self, node: Any) -> None:
        for observed, tag in self._tags:
            observed.RemoveObserver(tag)
        self._tags[:] = []
        self._node = node
        if node is not None:
            kind = slicer.vtkSegmentation
            segmentation = node.GetSegmentation()
            for event in (kind.SegmentAdded, kind.SegmentRemoved, kind.SegmentModified):
                self._tags.append((segmentation, segmentation.AddObserver(event, lambda *_: self._refill())))
        self._refill()

    def segmentCount(self) -> int:
        return self._table.rowCount

    def selectedSegmentIDs(self) -> tuple[str, ...]:
        rows = sorted({index.row() for index in self._table.selectedIndexes()})
        return tuple(self._table.item(row, 1).data(Qt.ItemDataRole.UserRole) for row in rows)

    def setSelectedSegmentIDs(self, identifiers: list[str]) -> None:
        self._table.clearSelection()
        for row in range(self._table.rowCount):
            if self._table.item(row, 1).data(Qt.ItemDataRole.UserRole) in identifiers:
                self._table.selectRow(row)

    @Slot()
    def clearSelection(self) -> None:
        self._table.clearSelection()

    def _refill(self) -> None:
        segments = _segments(self._node)
        self._table.setRowCount(len(segments))
        for row, (identifier, segment) in enumerate(segments):
            color = QtWidgets.QTableWidgetItem()
            color.setBackground(QtGui.QColor.fromRgbF(*segment.GetColor()))
            name = QtWidgets.QTableWidgetItem(segment.GetName())
            name.setData(Qt.ItemDataRole.UserRole, identifier)
            self._table.setItem(row, 0, color)
            self._table.setItem(row, 1, name)

    def _flag(name: str):
        def write(self, value: bool) -> None:
            self._flags[name] = bool(value)
            if name == "headerVisible":
                self._table.horizontalHeader().setVisible(bool(value))

        return Property(bool, lambda self: self._flags[name], write)

    headerVisible = _flag("headerVisible")
    visibilityColumnVisible = _flag("visibilityColumnVisible")
    colorColumnVisible = _flag("colorColumnVisible")
    opacityColumnVisible = _flag("opacityColumnVisible")
    statusColumnVisible = _flag("statusColumnVisible")
    readOnly = _flag("readOnly")
    filterBarVisible = _flag("filterBarVisible")
    del _flag


class qMRMLSegmentEditorWidget(HostClass, QtWidgets.QLabel):
    """A label in place of the Segment Editor: it remembers what it was given, and edits nothing."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        QtWidgets.QLabel.__init__(self, "Segment Editor (not part of the host)", parent)
        self._segmentation = self._source = self._editor_node = self._segment = self._scene = None

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLSegmentEditorNode(self, node: Any) -> None:
        self._editor_node = node

    def mrmlSegmentEditorNode(self) -> Any:
        return self._editor_node

    def setSegmentationNode(self, node: Any) -> None:
        self._segmentation = node

    def segmentationNode(self) -> Any:
        return self._segmentation

    def setSourceVolumeNode(self, node: Any) -> None:
        self._source = node

    def sourceVolumeNode(self) -> Any:
        return self._source

    def setCurrentSegmentID(self, identifier: str) -> None:
        self._segment = identifier

    def currentSegmentID(self) -> str:
        return self._segment or ""

    def setActiveEffectByName(self, name: str) -> None:
        pass

    def setMaximumNumberOfUndoStates(self, number: int) -> None:
        pass


def _segments(node: Any) -> list[tuple[str, Any]]:
    if node is None or node.GetSegmentation() is None:
        return []
    segmentation = node.GetSegmentation()
    count = segmentation.GetNumberOfSegments()
    return [(segmentation.GetNthSegmentID(index), segmentation.GetNthSegment(index)) for index in range(count)]
