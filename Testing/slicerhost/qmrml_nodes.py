# ruff: noqa: N801, N802, N815, RUF012 - the names are those of Slicer and Qt
"""Slicer's selectors of one node and of several."""

from typing import Any

import shiboken6
import slicer
from PySide6 import QtGui, QtWidgets
from PySide6.QtCore import Property, Qt, Signal, Slot

from slicerhost.node_selector import NodeSelector

__all__ = ["qMRMLCheckableNodeComboBox", "qMRMLNodeComboBox"]


class qMRMLNodeComboBox(NodeSelector):
    """Chooses one node, or none."""

    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)
    nodeActivated = Signal(object)
    nodeAdded = Signal(object)
    nodeAddedByUser = Signal(object)
    _signatures = {
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "currentNodeChanged(bool)": "_current_is_valid",
        "nodeActivated(vtkMRMLNode*)": "nodeActivated",
        "nodeAdded(vtkMRMLNode*)": "nodeAdded",
        "nodeAddedByUser(vtkMRMLNode*)": "nodeAddedByUser",
    }
    _current_is_valid = Signal(bool)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        self._combo: QtWidgets.QComboBox | None = None
        self._current: Any = None
        self._shown: list[Any] = []
        self._none_chosen = False
        NodeSelector.__init__(self, parent)
        self._combo = QtWidgets.QComboBox(self)
        self._combo.setSizeAdjustPolicy(QtWidgets.QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._combo.setMinimumContentsLength(8)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._combo)
        self._combo.activated.connect(self._activated)

    # What the module calls
    def currentNode(self) -> Any:
        return self._current

    def setCurrentNode(self, node: Any) -> None:
        if node is not None and node not in self._shown:
            node = None  # a node of another type or scene is not selectable
        self._none_chosen = node is None
        self._select(node)

    @Slot(str)
    def setCurrentNodeID(self, identifier: str | None) -> None:
        self.setCurrentNode(self._scene.GetNodeByID(identifier) if identifier and self._scene else None)

    @Slot(int)
    def setCurrentNodeIndex(self, index: int) -> None:
        self.setCurrentNode(self.nodeFromIndex(index))

    def addNode(self, node_type: str | None = None) -> Any:
        kind = node_type or self._types[0]
        name = self._scene.GenerateUniqueName(self._base_name or self._label(kind))
        node = self._scene.CreateNodeByClass(kind)
        node.UnRegister(None)
        node.SetName(name)
        if kind in self._attributes:
            attribute, value = self._attributes[kind]
            node.SetAttribute(attribute, "" if value is None else str(value))
        node = self._scene.AddNode(node)
        if self._select_created:
            self.setCurrentNode(node)
        self.nodeAdded.emit(node)
        self.nodeAddedByUser.emit(node)
        return node

    @Slot()
    def removeCurrentNode(self) -> None:
        if self._current is not None:
            self._scene.RemoveNode(self._current)

    @Slot()
    def editCurrentNode(self) -> None:
        slicer.app.openNodeModule(self._current)

    @Slot()
    def renameCurrentNode(self) -> None:
        if self._current is not None:
            name, accepted = QtWidgets.QInputDialog.getText(self, "Rename", "New name:", text=self._current.GetName())
            if accepted:
                self._current.SetName(name)

    def addMenuAction(self, action: QtGui.QAction) -> None:
        self._actions = [*getattr(self, "_actions", []), action]
        self._refill()

    # How it works
    def _label(self, kind: str) -> str:
        return self._labels.get(kind) or kind.removeprefix("vtkMRML").removesuffix("Node")

    def _refill(self) -> None:
        if self._combo is None:
            return
        nodes = self._nodes()
        added = [node for node in nodes if node not in self._shown]
        self._shown = nodes
        self._watch_names(nodes)
        entries: list[tuple[str, Any]] = [(node.GetName(), node) for node in nodes]
        if self._none:
            entries.insert(0, (self._none_display, None))
        tools: list[tuple[str, Any]] = []
        if self._add and self._scene is not None:
            tools += [(f"Create new {self._label(kind)}", ("add", kind)) for kind in self._types]
        if self._rename:
            tools.append(("Rename current…", ("rename", None)))
        if self._edit:
            tools.append(("Edit current…", ("edit", None)))
        if self._remove:
            tools.append(("Delete current", ("remove", None)))
        tools += [(action.text, ("action", action)) for action in getattr(self, "_actions", [])]
        self._entries = entries + tools
        self._combo.blockSignals(True)
        self._combo.clear()
        for text, _ in self._entries:
            self._combo.addItem(text)
        self._combo.blockSignals(False)
        if self._current is not None and self._current not in nodes:
            self._current = None
            self._select(nodes[0] if nodes and not self._none else None, force=True)
        elif self._current is None and nodes and not self._none and not self._none_chosen:
            self._select(nodes[0])  # without "none", and unless told None, the first there is
        else:
            self._show_current()
        del added

    def _show_current(self) -> None:
        at = next((i for i, (_, entry) in enumerate(self._entries) if entry is self._current), -1)
        self._combo.blockSignals(True)
        self._combo.setCurrentIndex(at)
        self._combo.blockSignals(False)

    def _select(self, node: Any, force: bool = False) -> None:
        changed = force or node is not self._current
        self._current = node
        if self._combo is not None and hasattr(self, "_entries"):
            self._show_current()
        if changed:
            self.currentNodeChanged.emit(node)
            if shiboken6.isValid(self):  # the slots may have closed the panel
                self._current_is_valid.emit(node is not None)
                self.currentNodeIDChanged.emit(node.GetID() if node is not None else "")

    def _activated(self, index: int) -> None:
        entry = self._entries[index][1]
        if isinstance(entry, tuple):
            self._show_current()
            what, value = entry
            {
                "add": lambda: self.addNode(value),
                "remove": self.removeCurrentNode,
                "edit": self.editCurrentNode,
                "rename": self.renameCurrentNode,
                "action": lambda: value.trigger(),
            }[what]()
            return
        self._select(entry)
        self.nodeActivated.emit(entry)

    def _renamed(self, node: Any, event: str) -> None:
        for index, (text, entry) in enumerate(self._entries):
            if entry is node and text != node.GetName():
                self._entries[index] = (node.GetName(), node)
                self._combo.setItemText(index, node.GetName())

    currentNodeID = Property(
        str, lambda self: self._current.GetID() if self._current is not None else "", setCurrentNodeID
    )


class qMRMLCheckableNodeComboBox(NodeSelector):
    """Chooses any number of nodes."""

    checkedNodesChanged = Signal()

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        self._list: QtWidgets.QListWidget | None = None
        self._shown: list[Any] = []
        NodeSelector.__init__(self, parent)
        self._list = QtWidgets.QListWidget(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._list)
        self._list.setMaximumHeight(90)
        self._list.itemChanged.connect(lambda item: self.checkedNodesChanged.emit())

    def checkedNodes(self) -> tuple:
        return tuple(node for i, node in enumerate(self._shown) if self._item(i).checkState() == Qt.CheckState.Checked)

    def uncheckedNodes(self) -> tuple:
        checked = self.checkedNodes()
        return tuple(node for node in self._shown if node not in checked)

    def allChecked(self) -> bool:
        return not self.uncheckedNodes()

    def noneChecked(self) -> bool:
        return not self.checkedNodes()

    def checkState(self, node: Any) -> Qt.CheckState:
        return self._item(self._shown.index(node)).checkState()

    def setCheckState(self, node: Any, state: Any) -> None:
        if node in self._shown:
            self._item(self._shown.index(node)).setCheckState(Qt.CheckState(state))

    def check(self, node: Any) -> None:
        self.setCheckState(node, Qt.CheckState.Checked)

    def uncheck(self, node: Any) -> None:
        self.setCheckState(node, Qt.CheckState.Unchecked)

    def setUserCheckable(self, node: Any, checkable: bool) -> None:
        item = self._item(self._shown.index(node))
        flag = Qt.ItemFlag.ItemIsUserCheckable
        item.setFlags(item.flags() | flag if checkable else item.flags() & ~flag)

    def _item(self, index: int) -> QtWidgets.QListWidgetItem:
        return self._list.item(index)

    def _refill(self) -> None:
        if self._list is None:
            return
        checked = self.checkedNodes() if self._list.count == len(self._shown) else ()
        self._shown = self._nodes()
        self._watch_names(self._shown)
        self._list.blockSignals(True)
        self._list.clear()
        for node in self._shown:
            item = QtWidgets.QListWidgetItem(node.GetName(), self._list)
            item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
            item.setCheckState(Qt.CheckState.Checked if node in checked else Qt.CheckState.Unchecked)
        self._list.blockSignals(False)
        if len(self.checkedNodes()) != len(checked):
            self.checkedNodesChanged.emit()

    def _renamed(self, node: Any, event: str) -> None:
        if node in self._shown:
            item = self._item(self._shown.index(node))
            if item is not None and item.text() != node.GetName():
                self._list.blockSignals(True)
                item.setText(node.GetName())
                self._list.blockSignals(False)
