"""Starts the host: patched Qt, the embedded Slicer, and the names that a scripted module imports."""

import sys
import time
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slicerhost import qtpatch

__all__ = ["Host", "start"]

_host: "Host | None" = None


@dataclass
class Host:
    """What a test works with.

    Attributes:
        app: ``slicer.app``.
        window: The main window with the panel and four views, or None without one.
        packaging: The record of ``slicer.packaging``.
        errors: What went wrong in callbacks since the test began; filled by the pytest fixture.
    """

    app: Any
    window: Any
    packaging: Any
    errors: list[str] = field(default_factory=list)

    def load_module(self, path: Path) -> Any:
        """Load a scripted module, as if its folder were an additional module path. Returns its Python widget.

        A module that is loaded already is unloaded first.
        """
        from slicerhost.modules import ScriptedModule

        name = Path(path).stem
        if self.app.moduleManager().isModuleLoaded(name):
            self.unload_module(name)
        self.app.moduleManager()._add(ScriptedModule(Path(path)))
        self.app.startupCompleted.emit()
        return self.show_module(name)

    def show_module(self, name: str) -> Any:
        """Select a module, which enters it. Returns its Python widget."""
        if self.window is not None:
            self.window.moduleSelector().selectModule(name)
        return self.app.moduleManager().module(name).widgetRepresentation().self()

    def unload_module(self, name: str) -> None:
        """Unload a module: it leaves, cleans up, and its panel is deleted."""
        self.app.moduleManager()._remove(name)
        self.app.sendPostedEvents(None, 52)  # QEvent.DeferredDelete: the panel goes now
        self.process_events()

    def process_events(self) -> None:
        """Let Qt do what is due."""
        self.app.processEvents()

    def wait_until(self, condition: Callable[[], Any], timeout: float = 10.0) -> Any:
        """Run the event loop until the condition holds; returns its value.

        Raises:
            TimeoutError: After so many seconds.
        """
        end = time.monotonic() + timeout
        while not (value := condition()):
            if time.monotonic() > end:
                raise TimeoutError(f"Not within {timeout} s")
            self.app.processEvents()
            time.sleep(0.005)
        return value

    def set_testing(self, enabled: bool) -> None:
        """``slicer.app.testingEnabled()``: while it is True, dialogs of slicer.util only write to the log."""
        self.app._testing = enabled

    def grab(self, path: Path | None = None, widget: Any = None) -> Any:
        """A picture of the window (or a widget) with its views drawn, saved where a path is given."""
        widget = widget or self.window
        widget.show()
        self.process_events()
        if self.window is not None:
            for view in self.app.layoutManager()._views():
                if view.isVisible():
                    view.forceRender()
        self.process_events()
        picture = widget.grab()
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            if not picture.save(str(path)):
                raise OSError(f"{path} could not be written")
        return picture

    def grab_screen(self, path: Path) -> Any:
        """What a real window system shows where the window is; the screen must be at least as large."""
        self.grab()  # drawn, and sent to the screen
        self.wait_until(self.window.windowHandle().isExposed)
        self.process_events()
        corner, size = self.window.mapToGlobal(self.window.rect.topLeft()), self.window.size
        area = corner.x(), corner.y(), size.width(), size.height()
        if not self.window.screen().geometry.contains(corner.x() + area[2] - 1, corner.y() + area[3] - 1):
            raise ValueError(f"The screen is smaller than the window, {area[2]} x {area[3]}")
        picture = self.window.screen().grabWindow(0, *area)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        if not picture.save(str(path)):
            raise OSError(f"{path} could not be written")
        return picture

    def reset(self) -> None:
        """Between tests: unload scripted modules, close the scene, forget settings and what the fakes have recorded."""
        import slicer

        from slicerhost.modules import ScriptedModule

        manager = self.app.moduleManager()
        for name in [name for name in manager.modulesNames() if isinstance(manager.module(name), ScriptedModule)]:
            self.unload_module(name)
        for widget in self.app.topLevelWidgets():
            if widget is not self.window:
                widget.close()
        slicer.mrmlScene.Clear(0)
        self.app.userSettings().clear()  # they outlive a panel, as in Slicer, but no test may hang on another's
        self.packaging.reset()
        self.set_testing(True)
        self.app._exit_code = None
        self.app._opened_nodes.clear()
        self.process_events()


def start(*, window: bool = True) -> Host:
    """Start the host in this process, once; later calls return the same.

    Args:
        window: Make the main window with views. Without one, as with ``Slicer --no-main-window``, there is no layout
            manager and ``slicer.util.mainWindow()`` is None.
    """
    global _host
    if _host is not None:
        return _host
    qtpatch.patch()  # before the QApplication
    qt = qtpatch.make_qt_module()
    from slicerhost.ctk import make_ctk_module

    make_ctk_module()
    from SSLSegLib.scene import embedded

    parts = embedded.start()
    import slicer

    from slicerhost.packaging_fake import PackagingFake, make_packaging_module
    from slicerhost.qmrml import QMRML_CLASSES
    from slicerhost.ui_loader import make_ui_loader

    for each in QMRML_CLASSES:
        setattr(slicer, each.__name__, each)
    qt.QUiLoader = make_ui_loader()
    fake = PackagingFake()
    _put("packaging", make_packaging_module(fake))
    _put("i18n", _translations())

    from slicerhost.application import Application

    messages: list[str] = []
    _listen_to_qt(messages)
    app = Application(Path(parts.temporary_folder))
    app._scene, app._logic = parts.scene, parts.application_logic
    slicer.app = app

    from slicerhost import scripted, slicer_sources
    from slicerhost.modules import FakeSegmentEditorModule, ModulePanel, PlainModule
    from slicerhost.parameter_wrapper import make_parameter_node_wrapper_module
    from slicerhost.sample_data_fake import make_sample_data_module

    sys.modules["slicer.ScriptedLoadableModule"] = scripted
    slicer.ScriptedLoadableModule = scripted
    _put("parameterNodeWrapper", make_parameter_node_wrapper_module())
    make_sample_data_module()
    sources = slicer_sources.sources_folder()
    if sources is not None:
        slicer_sources.use_sources(sources)
    slicer.qSlicerScriptedLoadableModuleWidget = ModulePanel  # slicer.util tells scripted panels by this class
    for name, logic in parts.logics.items():
        app.moduleManager()._add(PlainModule(name, logic))
    app.moduleManager()._add(FakeSegmentEditorModule())

    main_window = None
    if window:
        from slicerhost.window import MainWindow

        main_window = MainWindow(parts.scene, parts.application_logic)
        app._layout_manager = main_window._manager
        main_window.show()
    _host = Host(app, main_window, fake, messages)
    return _host


def _listen_to_qt(messages: list[str]) -> None:
    """Warnings of Qt (a second layout, a connection that cannot be made) are errors of the module."""
    from PySide6 import QtCore

    harmless = ("does not support propagateSizeHints", "does not support raise()", "does not support grabbing")
    serious = (QtCore.QtMsgType.QtWarningMsg, QtCore.QtMsgType.QtCriticalMsg, QtCore.QtMsgType.QtFatalMsg)

    def listen(kind: QtCore.QtMsgType, context: object, text: str) -> None:
        if kind in serious and not any(each in text for each in harmless):
            messages.append(f"Qt: {text}")
            print(f"Qt: {text}", file=sys.stderr)

    QtCore.qInstallMessageHandler(listen)


def _put(name: str, module: types.ModuleType) -> None:
    import slicer

    sys.modules[f"slicer.{name}"] = module
    setattr(slicer, name, module)


def _translations() -> types.ModuleType:
    module = types.ModuleType("slicer.i18n")
    module.tr = lambda text: text
    module.translate = lambda context, text: text
    module.getContext = lambda path: Path(path).stem
    return module
