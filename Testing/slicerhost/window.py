# ruff: noqa: N802, N815 - the names are those of Slicer and Qt
"""The main window: a module panel beside the four-up views, and the layout manager that modules ask for."""

from typing import Any

import slicer
from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Property, Signal, Slot

from slicerhost.qtpatch import HostClass
from slicerhost.views import SliceView, ThreeDView

__all__ = ["LayoutManager", "MainWindow", "ModuleSelector"]

SLICES = (  # name, orientation, letter and colour of its bar
    ("Red", "Axial", "R", (0.95, 0.29, 0.2)),
    ("Green", "Coronal", "G", (0.43, 0.69, 0.29)),
    ("Yellow", "Sagittal", "Y", (0.93, 0.84, 0.3)),
)


class SliceController(HostClass, QtCore.QObject):
    """The part of a slice's controller bar that scripts use."""

    def __init__(self, view: SliceView) -> None:
        QtCore.QObject.__init__(self, view)
        self._view = view

    def fitSliceToBackground(self) -> None:
        self._view._fit()

    def setSliceVisible(self, visible: bool) -> None:
        self._view._node.SetSliceVisible(visible)

    def setSliceOffsetValue(self, offset: float) -> None:
        self._view._logic.SetSliceOffset(offset)

    def sliceOffsetSlider(self) -> Any:
        raise NotImplementedError("The host has no slice slider: use the slice logic.")


class SliceWidget(HostClass, QtWidgets.QWidget):
    """A slice view in its frame."""

    def __init__(self, view: SliceView) -> None:
        QtWidgets.QWidget.__init__(self)
        self._view, self._controller = view, SliceController(view)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        self._bar = QtWidgets.QLabel(self)
        red, green, blue = (round(255 * part) for part in view._node.GetLayoutColor())
        self._bar.setStyleSheet(f"background: rgb({red}, {green}, {blue}); color: black; padding: 1px 6px;")
        layout.addWidget(self._bar)
        view._node.AddObserver("ModifiedEvent", lambda *_: self._show_offset())
        self._show_offset()
        layout.addWidget(view)

    def _show_offset(self) -> None:
        node = self._view._node
        self._bar.setText(f"{node.GetLayoutLabel()}   {node.GetOrientation()}   {node.GetSliceOffset():.2f} mm")

    def sliceView(self) -> SliceView:
        return self._view

    def sliceLogic(self) -> Any:
        return self._view._logic

    def sliceController(self) -> SliceController:
        return self._controller

    def mrmlSliceNode(self) -> Any:
        return self._view._node

    def fitSliceToBackground(self) -> None:
        self._view._fit()


class ThreeDWidget(HostClass, QtWidgets.QWidget):
    """A 3D view in its frame."""

    def __init__(self, view: ThreeDView) -> None:
        QtWidgets.QWidget.__init__(self)
        self._view = view
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        bar = QtWidgets.QLabel("1", self)
        bar.setStyleSheet("background: rgb(116, 115, 190); color: black; padding: 1px 6px;")
        layout.addWidget(bar)
        layout.addWidget(view)

    def threeDView(self) -> ThreeDView:
        return self._view

    def mrmlViewNode(self) -> Any:
        return self._view._node


class LayoutManager(HostClass, QtCore.QObject):
    """Always the four-up layout; other layouts are remembered, and shown as four-up."""

    layoutChanged = Signal(int)

    def __init__(self, scene: Any, application_logic: Any, frame: QtWidgets.QWidget) -> None:
        QtCore.QObject.__init__(self, frame)
        self._layout = 3  # vtkMRMLLayoutNode.SlicerLayoutFourUpView
        self._slices = {}
        for name, orientation, letter, color in SLICES:
            view = SliceView(scene, application_logic, name, orientation)
            view._node.SetLayoutLabel(letter)
            view._node.SetLayoutColor(*color)
            self._slices[name] = SliceWidget(view)
        self._threed = ThreeDWidget(ThreeDView(scene, application_logic, "1"))
        grid = QtWidgets.QGridLayout(frame)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(2)
        places = {"Red": (0, 0), "Green": (1, 0), "Yellow": (1, 1)}
        for name, place in places.items():
            grid.addWidget(self._slices[name], *place)
        grid.addWidget(self._threed, 0, 1)

    def sliceViewNames(self) -> tuple[str, ...]:
        return tuple(self._slices)

    def sliceWidget(self, name: str) -> SliceWidget | None:
        return self._slices.get(name)

    def threeDWidget(self, which: int | str) -> ThreeDWidget | None:
        return self._threed if which in (0, "1", "View1") else None

    def plotWidget(self, which: int) -> None:
        return None

    def tableWidget(self, which: int) -> None:
        return None

    def resetThreeDViews(self) -> None:
        self._threed._view.resetCamera()

    def resetSliceViews(self) -> None:
        for widget in self._slices.values():
            widget._view._fit()

    def mrmlSliceLogics(self) -> Any:
        return slicer.app.applicationLogic().GetSliceLogics()

    @Slot(int)
    def setLayout(self, layout: int) -> None:
        if layout != self._layout:
            self._layout = layout
            self.layoutChanged.emit(layout)

    def mrmlScene(self) -> Any:
        return slicer.mrmlScene

    def _views(self) -> list[Any]:
        return [widget._view for widget in self._slices.values()] + [self._threed._view]

    layout = Property(int, lambda self: self._layout, setLayout)
    threeDViewCount = Property(int, lambda self: 1)
    tableViewCount = Property(int, lambda self: 0)
    plotViewCount = Property(int, lambda self: 0)


class ModuleSelector(HostClass, QtCore.QObject):
    """Chooses the module whose panel is shown."""

    moduleSelected = Signal(str)

    def __init__(self, window: "MainWindow") -> None:
        QtCore.QObject.__init__(self, window)
        self._window = window
        self._selected = ""

    @Slot(str)
    def selectModule(self, name: str) -> None:
        self._window._show_module(name)
        self._selected = name
        self.moduleSelected.emit(name)

    selectedModule = Property(str, lambda self: self._selected)


class MainWindow(HostClass, QtWidgets.QMainWindow):
    """``slicer.util.mainWindow()``."""

    def __init__(self, scene: Any, application_logic: Any) -> None:
        QtWidgets.QMainWindow.__init__(self)
        self.setObjectName("qSlicerMainWindow")
        self.setWindowTitle("3D Slicer stand-in")
        self._panels = QtWidgets.QStackedWidget()
        self._panels.setObjectName("ModulePanel")
        scroll = QtWidgets.QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setWidget(self._panels)
        scroll.setMinimumWidth(420)
        scroll.setHorizontalScrollBarPolicy(QtCore.Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        frame = QtWidgets.QWidget()
        splitter = QtWidgets.QSplitter()
        splitter.addWidget(scroll)
        splitter.addWidget(frame)
        splitter.setStretchFactor(1, 1)
        splitter.setSizes([460, 900])
        self.setCentralWidget(splitter)
        self._selector = ModuleSelector(self)
        self._manager = LayoutManager(scene, application_logic, frame)
        self._entered: Any = None
        self.statusBar()
        self.resize(1400, 900)

    def moduleSelector(self) -> ModuleSelector:
        return self._selector

    def _show_module(self, name: str) -> None:
        """Leave the module that is shown and enter another, as choosing it in the menu does."""
        module = slicer.app.moduleManager().module(name)
        if module is None:
            raise RuntimeError(f"There is no module {name}")
        panel = module.widgetRepresentation()
        self._leave_module()
        if panel is None:
            return
        if self._panels.indexOf(panel) < 0:
            self._panels.addWidget(panel)
        self._panels.setCurrentWidget(panel)
        self._entered = panel
        panel._entered = True
        widget = panel.self() if hasattr(panel, "self") else None
        if widget is not None and hasattr(widget, "enter"):
            widget.enter()

    def _leave_module(self) -> None:
        panel, self._entered = self._entered, None
        if panel is not None:
            panel._entered = False
            widget = panel.self() if hasattr(panel, "self") else None
            if widget is not None and hasattr(widget, "exit"):
                widget.exit()
