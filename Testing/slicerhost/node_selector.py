# ruff: noqa: N802, N805, N815 - the names are those of Slicer and Qt
"""What Slicer's selectors of nodes share: which nodes of the scene there are to choose from."""

from collections.abc import Callable
from typing import Any

import shiboken6
import slicer
import vtk
from PySide6 import QtWidgets
from PySide6.QtCore import Property

from slicerhost.qtpatch import HostClass

__all__ = ["NodeSelector"]


class _SceneWatcher:
    """Calls back when nodes come, go or change their name, but not while the scene is busy with many at once."""

    def __init__(self, owner: QtWidgets.QWidget, callback: Callable[[], None]) -> None:
        self.owner, self.callback = owner, callback
        self.scene: Any = None
        self.tags: list[tuple[Any, int]] = []

    def watch(self, scene: Any) -> None:
        for observed, tag in self.tags:
            observed.RemoveObserver(tag)
        self.tags = []
        self.scene = scene
        if scene is None:
            return
        kind = slicer.vtkMRMLScene
        events = (
            kind.NodeAddedEvent,
            kind.NodeRemovedEvent,
            kind.EndCloseEvent,
            kind.EndBatchProcessEvent,
            kind.EndImportEvent,
        )
        self.tags = [(scene, scene.AddObserver(event, self._changed)) for event in events]

    def _changed(self, scene: Any, event: str) -> None:
        if not shiboken6.isValid(self.owner):
            self.watch(None)  # Qt has deleted the widget with its window
        elif not scene.IsBatchProcessing():
            self.callback()


class NodeSelector(HostClass, QtWidgets.QWidget):
    """What selectors of nodes share: which nodes there are to choose from."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        QtWidgets.QWidget.__init__(self, parent)
        self._scene: Any = None
        self._types: list[str] = []
        self._show_hidden = False
        self._show_children = True
        self._hide_children: list[str] = []
        self._none, self._add, self._remove, self._edit, self._rename = False, True, True, False, False
        self._base_name, self._none_display = "", "None"
        self._select_created = True
        self._attributes: dict[str, tuple[str, Any]] = {}
        self._labels: dict[str, str] = {}
        self._names: list[tuple[Any, int]] = []
        self._watcher = _SceneWatcher(self, self._refill)
        watcher, names = self._watcher, self._names
        self.destroyed.connect(lambda *_: _forget(watcher, names))

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        if scene is self._scene:
            return
        self._scene = scene
        self._watcher.watch(scene)
        self._refill()

    def nodeCount(self) -> int:
        return len(self._nodes())

    def nodeFromIndex(self, index: int) -> Any:
        nodes = self._nodes()
        return nodes[index] if 0 <= index < len(nodes) else None

    def addAttribute(self, node_type: str, name: str, value: Any = None) -> None:
        self._attributes[node_type] = (name, value)
        self._refill()

    def removeAttribute(self, node_type: str, name: str) -> None:
        self._attributes.pop(node_type, None)
        self._refill()

    def setNodeTypeLabel(self, label: str, node_type: str) -> None:
        self._labels[node_type] = label

    def _fits(self, node: Any) -> bool:
        types = [each for each in self._types if node.IsA(each)]
        if not types or (node.GetHideFromEditors() and not self._show_hidden):
            return False
        if not self._show_children and node.GetClassName() not in self._types:
            return False
        if any(node.IsA(each) for each in self._hide_children):
            return False
        for each in types:
            if each in self._attributes:
                name, value = self._attributes[each]
                found = node.GetAttribute(name)
                if found is None or (value is not None and str(value) != found):
                    return False
        return True

    def _nodes(self) -> list[Any]:
        if self._scene is None:
            return []
        every = [self._scene.GetNthNode(index) for index in range(self._scene.GetNumberOfNodes())]
        return [node for node in every if self._fits(node)]

    def _watch_names(self, nodes: list[Any]) -> None:
        for node, tag in self._names:
            node.RemoveObserver(tag)
        self._names[:] = [(node, node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._renamed)) for node in nodes]

    def _renamed(self, node: Any, event: str) -> None:
        raise NotImplementedError

    def _refill(self) -> None:
        raise NotImplementedError

    def _setter(attribute: str, kind: type = bool):
        def write(self, value) -> None:
            setattr(self, attribute, kind(value))
            self._refill()

        return write

    def _lister(attribute: str):
        def write(self, value) -> None:
            setattr(self, attribute, [value] if isinstance(value, str) else list(value))
            self._refill()

        return write

    # Lists leave Qt as tuples.
    nodeTypes = Property("QVariantList", lambda self: tuple(self._types), _lister("_types"))
    hideChildNodeTypes = Property("QVariantList", lambda self: tuple(self._hide_children), _lister("_hide_children"))
    showHidden = Property(bool, lambda self: self._show_hidden, _setter("_show_hidden"))
    showChildNodeTypes = Property(bool, lambda self: self._show_children, _setter("_show_children"))
    noneEnabled = Property(bool, lambda self: self._none, _setter("_none"))
    addEnabled = Property(bool, lambda self: self._add, _setter("_add"))
    removeEnabled = Property(bool, lambda self: self._remove, _setter("_remove"))
    editEnabled = Property(bool, lambda self: self._edit, _setter("_edit"))
    renameEnabled = Property(bool, lambda self: self._rename, _setter("_rename"))
    baseName = Property(str, lambda self: self._base_name, _setter("_base_name", str))
    noneDisplay = Property(str, lambda self: self._none_display, _setter("_none_display", str))
    selectNodeUponCreation = Property(bool, lambda self: self._select_created, _setter("_select_created"))
    del _setter, _lister


def _forget(watcher: _SceneWatcher, names: list[tuple[Any, int]]) -> None:
    watcher.watch(None)
    for node, tag in names:
        node.RemoveObserver(tag)
