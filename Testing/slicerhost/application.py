# ruff: noqa: N802, N815, RUF012 - the names are those of Slicer and Qt
"""``slicer.app``: one QApplication with the properties and methods that modules and ``slicer.util`` ask for."""

import platform
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Property, Signal, Slot

from slicerhost.io_manager import CoreIOManager
from slicerhost.modules import ModuleManager
from slicerhost.qtpatch import HostClass

__all__ = ["Application"]


class Application(HostClass, QtWidgets.QApplication):
    """The application; properties are values, as in PythonQt."""

    startupCompleted = Signal()
    mrmlSceneChanged = Signal(object)
    _signatures = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}

    def __init__(self, folder: Path) -> None:
        QtCore.QSettings.setDefaultFormat(QtCore.QSettings.Format.IniFormat)
        # The user's settings are not the host's to touch.
        QtCore.QSettings.setPath(
            QtCore.QSettings.Format.IniFormat, QtCore.QSettings.Scope.UserScope, str(folder / "settings")
        )
        QtWidgets.QApplication.__init__(self, [sys.argv[0] or "slicerhost"])
        self.setApplicationName("Slicer")
        self.setOrganizationName("SlicerHost")
        self._folder = folder
        self._scene: Any = None
        self._logic: Any = None
        self._layout_manager: Any = None
        self._testing = True
        self._paused = 0
        self._exit_code: int | None = None
        self._opened_nodes: list[Any] = []
        self._modules = ModuleManager(self)
        self._io = CoreIOManager(self)
        (folder / "cache").mkdir(parents=True, exist_ok=True)

    # Parts
    def mrmlScene(self) -> Any:
        return self._scene

    def applicationLogic(self) -> Any:
        return self._logic

    def moduleManager(self) -> ModuleManager:
        return self._modules

    def coreIOManager(self) -> CoreIOManager:
        return self._io

    def ioManager(self) -> CoreIOManager:
        return self._io

    def layoutManager(self) -> Any:
        return self._layout_manager

    def mainWindow(self) -> Any:
        import slicer

        return slicer.util.mainWindow()

    def userSettings(self) -> QtCore.QSettings:
        return QtCore.QSettings()

    def settings(self) -> QtCore.QSettings:
        return QtCore.QSettings()

    def pythonConsole(self) -> None:
        return None

    def extensionsManagerModel(self) -> None:
        return None

    # Behaviour
    def testingEnabled(self) -> bool:
        return self._testing

    def commandOptions(self) -> Any:
        return SimpleNamespace(testingEnabled=self._testing, noMainWindow=False, runPythonAndExit=False)

    def startupEnvironment(self) -> QtCore.QProcessEnvironment:
        return QtCore.QProcessEnvironment.systemEnvironment()

    def pauseRender(self) -> None:
        self._paused += 1
        self._set_paused(True)

    def resumeRender(self) -> None:
        self._paused = max(self._paused - 1, 0)
        self._set_paused(self._paused > 0)

    def setRenderPaused(self, paused: bool) -> None:
        (self.pauseRender if paused else self.resumeRender)()

    def _set_paused(self, paused: bool) -> None:
        if self._layout_manager is not None:
            for view in self._layout_manager._views():
                view.setPaused(paused)

    def openNodeModule(self, node: Any, *_: Any) -> None:
        self._opened_nodes.append(node)

    def moduleDocumentationUrl(self, name: str) -> str:
        return f"https://slicer.readthedocs.io/en/latest/user_guide/modules/{name.lower()}.html"

    @Slot()
    def restart(self) -> None:
        self._exit_code = 0

    def exit(self, status: int = 0) -> None:
        self._exit_code = status

    temporaryPath = Property(str, lambda self: str(self._folder))
    cachePath = Property(str, lambda self: str(self._folder / "cache"))
    slicerHome = Property(str, lambda self: str(self._folder))
    slicerUserSettingsFilePath = Property(str, lambda self: QtCore.QSettings().fileName())
    applicationVersion = Property(str, lambda self: "5.12.0")
    majorVersion = Property(int, lambda self: 5)
    minorVersion = Property(int, lambda self: 12)
    revision = Property(str, lambda self: "34000")
    documentationBaseUrl = Property(str, lambda self: "https://slicer.readthedocs.io/en/latest")
    arch = Property(str, lambda self: platform.machine())
    os = Property(str, lambda self: {"Windows": "win", "Darwin": "macosx"}.get(platform.system(), "linux"))
    platform = Property(str, lambda self: f"{self.os}-{self.arch}")
    intDir = Property(str, lambda self: "")
