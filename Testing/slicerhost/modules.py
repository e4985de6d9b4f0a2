# ruff: noqa: N802, N805, N815 - the names are those of Slicer and Qt
"""Modules as the application keeps them: loading a scripted module, its one panel, unloading and reloading it."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import slicer
from PySide6 import QtCore, QtWidgets

from slicerhost.qmrml import qMRMLSegmentEditorWidget, qMRMLWidget
from slicerhost.qtpatch import HostClass

__all__ = ["FakeSegmentEditorModule", "ModuleManager", "ScriptedModule"]


class ModulePanel(qMRMLWidget):
    """The widget that Slicer makes for a module's panel; ``self()`` is the module's Python widget."""

    def __init__(self, name: str) -> None:
        qMRMLWidget.__init__(self)
        self.setObjectName(f"{name}ModuleWidget")
        self.setLayout(QtWidgets.QVBoxLayout())
        self._widget: Any = None

    def self(this) -> Any:
        return this._widget


class ScriptedModule:
    """One scripted module, as ``slicer.modules.<name>`` shows it."""

    def __init__(self, path: Path) -> None:
        path = Path(path).resolve()
        self.name = path.stem
        self.path = str(path)
        self._panel: ModulePanel | None = None
        # The module class writes title, categories, icon ... to its parent, which is not this object's concern.
        self.parent = SimpleNamespace(path=self.path, name=self.name, hidden=False, icon=None, title=self.name)
        if str(path.parent) not in sys.path:
            sys.path.insert(0, str(path.parent))
        self.python_module = self._import()
        setattr(slicer.modules, f"{self.name}Instance", getattr(self.python_module, self.name)(self.parent))

    def _import(self) -> Any:
        specification = importlib.util.spec_from_file_location(self.name, self.path)
        module = importlib.util.module_from_spec(specification)
        sys.modules[self.name] = module
        specification.loader.exec_module(module)
        return module

    @property
    def title(self) -> str:
        return self.parent.title

    @property
    def icon(self) -> Any:
        return self.parent.icon

    def logic(self) -> None:
        return None  # a scripted module's Python logic is made by whoever wants one

    def widgetRepresentation(self) -> ModulePanel:
        if self._panel is None:
            self._panel = self.createNewWidgetRepresentation()
        return self._panel

    def createNewWidgetRepresentation(self) -> ModulePanel:
        panel = ModulePanel(self.name)
        panel.setMRMLScene(slicer.mrmlScene)
        widget = getattr(self.python_module, f"{self.name}Widget")(panel)
        panel._widget = widget
        setattr(slicer.modules, f"{self.name}Widget", widget)
        widget.setup()
        return panel

    def close(self) -> None:
        panel, self._panel = self._panel, None
        if panel is not None:
            window = slicer.util.mainWindow()
            if window is not None and window._entered is panel:
                window._entered = None  # cleanup() has been called, exit() is not
            panel.setParent(None)
            panel.deleteLater()
        for suffix in ("Widget", "Instance"):
            if hasattr(slicer.modules, self.name + suffix):
                delattr(slicer.modules, self.name + suffix)


class FakeSegmentEditorModule:
    """In place of the Segment Editor: its ``editor`` remembers what it was given."""

    def __init__(self) -> None:
        self.name = self.title = "SegmentEditor"
        self.path = ""
        self._panel: ModulePanel | None = None

    def logic(self) -> Any:
        return None

    def widgetRepresentation(self) -> ModulePanel:
        if self._panel is None:
            self._panel = ModulePanel(self.name)
            editor = qMRMLSegmentEditorWidget()
            editor.setMRMLScene(slicer.mrmlScene)
            self._panel.layout().addWidget(editor)
            self._panel._widget = SimpleNamespace(editor=editor)
        return self._panel


class PlainModule:
    """A C++ module of which the host has the logic only."""

    def __init__(self, name: str, logic: Any) -> None:
        self.name = self.title = name
        self.path = ""
        self._logic = logic

    def logic(self) -> Any:
        return self._logic

    def widgetRepresentation(self) -> None:
        return None


class ModuleManager(HostClass, QtCore.QObject):
    """``slicer.app.moduleManager()``."""

    moduleLoaded = QtCore.Signal(str)
    moduleAboutToBeUnloaded = QtCore.Signal(str)
    moduleUnloaded = QtCore.Signal(str)

    def __init__(self, parent: QtCore.QObject) -> None:
        QtCore.QObject.__init__(self, parent)
        self._modules: dict[str, Any] = {}

    def module(self, name: str) -> Any:
        return self._modules.get(name)

    def isModuleLoaded(self, name: str) -> bool:
        return name in self._modules

    def modulesNames(self) -> tuple[str, ...]:
        return tuple(self._modules)

    def loadedModuleNames(self) -> tuple[str, ...]:
        return tuple(self._modules)

    def factoryManager(self) -> "ModuleManager":
        return self

    def _add(self, module: Any) -> None:
        self._modules[module.name] = module
        setattr(slicer.modules, module.name.lower(), module)
        self.moduleLoaded.emit(module.name)

    def _remove(self, name: str) -> None:
        module = self._modules[name]
        self.moduleAboutToBeUnloaded.emit(name)
        module.close()
        del self._modules[name]
        delattr(slicer.modules, name.lower())
        sys.modules.pop(name, None)
        self.moduleUnloaded.emit(name)
