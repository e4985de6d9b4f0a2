# ruff: noqa: N802, RUF012 - the names are those of Slicer and Qt
"""Real slice and 3D views: Slicer's displayable managers on offscreen VTK windows, painted into Qt widgets."""

import os

os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")  # one behaviour with and without a display

from typing import Any

import numpy as np
import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Qt
from vtk.util.numpy_support import vtk_to_numpy

from slicerhost.qtpatch import HostClass

__all__ = ["SliceView", "ThreeDView"]

SLICE_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLTransformsDisplayableManager2D",
)
VIEW_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLThreeDReformatDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLVolumeRenderingDisplayableManager",
)


class _View(HostClass, QtWidgets.QWidget):
    """A VTK window that is drawn when something changed, at most once per turn of the event loop."""

    def __init__(self, factory: Any, managers: tuple[str, ...], application_logic: Any, parent: Any = None) -> None:
        QtWidgets.QWidget.__init__(self, parent)
        self._logic: Any = None
        self._image: QtGui.QImage | None = None
        self._paused = False
        self.setMinimumSize(60, 60)
        self.setSizePolicy(QtWidgets.QSizePolicy.Policy.Expanding, QtWidgets.QSizePolicy.Policy.Expanding)
        self._window = vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(1)
        self._window.SetMultiSamples(0)
        self._window.SetSize(200, 200)
        self._renderer = vtk.vtkRenderer()
        self._window.AddRenderer(self._renderer)
        self._interactor = vtk.vtkRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        self._interactor.Initialize()
        singleton = factory.GetInstance()  # one per process: so is the application
        singleton.SetMRMLApplicationLogic(application_logic)
        for manager in managers:
            if not singleton.IsDisplayableManagerRegistered(manager):
                singleton.RegisterDisplayableManager(manager)
        self._group = slicer.vtkMRMLDisplayableManagerGroup()
        self._group.Initialize(singleton, self._renderer)
        self._group.AddObserver(vtk.vtkCommand.UpdateEvent, lambda *_: self.scheduleRender())
        self._timer = QtCore.QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._draw)

    # What PythonQt shows of qMRMLSliceView and qMRMLThreeDView
    def renderWindow(self) -> Any:
        return self._window

    def interactor(self) -> Any:
        return self._interactor

    def scheduleRender(self) -> None:
        if not self._paused and self.isVisible():
            self._timer.start()

    def forceRender(self) -> None:
        self._fit_window()
        self._draw()

    def displayableManagerByClassName(self, name: str) -> Any:
        return self._group.GetDisplayableManagerByClassName(name)

    def setPaused(self, paused: bool) -> None:
        self._paused = paused
        if not paused:
            self.scheduleRender()

    # How it works
    def _fit_window(self) -> None:
        size = max(self.width, 10), max(self.height, 10)
        if self._window.GetSize() != size:
            self._window.SetSize(*size)
            self._resized(*size)

    def _resized(self, width: int, height: int) -> None:
        pass

    def _draw(self) -> None:
        self._fit_window()
        self._window.Render()
        width, height = self._window.GetSize()
        pixels = vtk.vtkUnsignedCharArray()
        self._window.GetPixelData(0, 0, width - 1, height - 1, 0, pixels, 0)
        array = np.ascontiguousarray(vtk_to_numpy(pixels).reshape(height, width, 3)[::-1])
        self._image = QtGui.QImage(array.data, width, height, 3 * width, QtGui.QImage.Format.Format_RGB888).copy()
        self.update()

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        painter = QtGui.QPainter(self)
        if self._image is None or self._image.size() != self.size:
            painter.fillRect(self.rect, Qt.GlobalColor.black)
            self.scheduleRender()
        if self._image is not None:
            painter.drawImage(0, 0, self._image)

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:
        self._fit_window()
        self.scheduleRender()

    def showEvent(self, event: QtGui.QShowEvent) -> None:
        self.scheduleRender()

    def _event(self, event: Any, name: str) -> None:
        position = event.position()
        modifiers = event.modifiers()
        self._interactor.SetEventInformationFlipY(
            round(position.x()),
            round(position.y()),
            int(bool(modifiers & Qt.KeyboardModifier.ControlModifier)),
            int(bool(modifiers & Qt.KeyboardModifier.ShiftModifier)),
            "\0",
            0,
            None,
        )
        self._interactor.InvokeEvent(name)

    _BUTTONS = {
        Qt.MouseButton.LeftButton: "LeftButton",
        Qt.MouseButton.RightButton: "RightButton",
        Qt.MouseButton.MiddleButton: "MiddleButton",
    }

    def mousePressEvent(self, event: QtGui.QMouseEvent) -> None:
        self._event(event, self._BUTTONS.get(event.button(), "LeftButton") + "PressEvent")

    def mouseReleaseEvent(self, event: QtGui.QMouseEvent) -> None:
        self._event(event, self._BUTTONS.get(event.button(), "LeftButton") + "ReleaseEvent")

    def mouseMoveEvent(self, event: QtGui.QMouseEvent) -> None:
        self._event(event, "MouseMoveEvent")

    def wheelEvent(self, event: QtGui.QWheelEvent) -> None:
        self._event(event, "MouseWheelForwardEvent" if event.angleDelta().y() > 0 else "MouseWheelBackwardEvent")


class SliceView(_View):
    """A slice view with the logic and node that Slicer gives it."""

    def __init__(self, scene: Any, application_logic: Any, name: str, orientation: str, parent: Any = None) -> None:
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory
        _View.__init__(self, factory, SLICE_MANAGERS, application_logic, parent)
        self._renderer.GetActiveCamera().ParallelProjectionOn()
        over = vtk.vtkRenderer()
        over.SetLayer(1)
        over.GetActiveCamera().ParallelProjectionOn()
        self._window.SetNumberOfLayers(2)
        self._window.AddRenderer(over)
        mapper = vtk.vtkImageMapper()  # stands in for CTK's light box
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        self._actor = vtk.vtkActor2D()
        self._actor.SetMapper(mapper)
        self._actor.GetProperty().SetDisplayLocationToBackground()
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(application_logic)
        self._logic.SetMRMLScene(scene)
        application_logic.GetSliceLogics().AddItem(self._logic)
        self._node = self._logic.AddSliceNode(name)
        self._node.SetOrientation(orientation)
        self._node.SetMappedInLayout(1)
        self._group.SetMRMLDisplayableNode(self._node)
        self._logic.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._connect_image())
        self._style = slicer.vtkMRMLSliceViewInteractorStyle()
        self._style.SetSliceLogic(self._logic)
        self._style.SetDisplayableManagers(self._group)
        self._interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())
        self._style.SetInteractor(self._interactor)

    def mrmlSliceNode(self) -> Any:
        return self._node

    def _resized(self, width: int, height: int) -> None:
        if self._logic is not None:
            self._logic.ResizeSliceNode(width, height)

    def _connect_image(self) -> None:
        connection = self._logic.GetImageDataConnection()
        self._actor.GetMapper().SetInputConnection(connection)
        self._actor.SetVisibility(bool(connection))
        if connection and not self._renderer.HasViewProp(self._actor):
            # Before all that is there already: what is translucent must find the image drawn below it.
            props = self._renderer.GetViewProps()
            others = [props.GetItemAsObject(index) for index in range(props.GetNumberOfItems())]
            self._renderer.RemoveAllViewProps()
            for prop in (self._actor, *others):
                self._renderer.AddViewProp(prop)
        self.scheduleRender()

    def _fit(self) -> None:
        self._fit_window()
        self._logic.FitSliceToBackground()
        self._logic.SnapSliceOffsetToIJK()


class ThreeDView(_View):
    """A 3D view."""

    def __init__(self, scene: Any, application_logic: Any, name: str, parent: Any = None) -> None:
        factory = slicer.vtkMRMLThreeDViewDisplayableManagerFactory
        _View.__init__(self, factory, VIEW_MANAGERS, application_logic, parent)
        self._renderer.SetUseDepthPeeling(True)
        self._logic = slicer.vtkMRMLViewLogic()
        self._logic.SetMRMLApplicationLogic(application_logic)
        self._logic.SetMRMLScene(scene)
        application_logic.GetViewLogics().AddItem(self._logic)
        self._node = self._logic.AddViewNode(name)
        self._node.SetMappedInLayout(1)
        self._group.SetMRMLDisplayableNode(self._node)
        self._style = slicer.vtkMRMLThreeDViewInteractorStyle()
        self._style.SetDisplayableManagers(self._group)
        self._interactor.SetInteractorStyle(vtk.vtkInteractorStyle3D())
        self._style.SetInteractor(self._interactor)

    def mrmlViewNode(self) -> Any:
        return self._node

    def resetFocalPoint(self) -> None:
        self.resetCamera()

    def resetCamera(self) -> None:
        self._fit_window()
        shown = self._node.GetBoxVisible(), self._node.GetAxisLabelsVisible()
        self._node.SetBoxVisible(False)  # the box is as large as the scene once was
        self._node.SetAxisLabelsVisible(False)
        self._renderer.ResetCamera()
        self._node.SetBoxVisible(shown[0])
        self._node.SetAxisLabelsVisible(shown[1])
        self._renderer.ResetCameraClippingRange()
        self.scheduleRender()

    def rotateToViewAxis(self, axis: int) -> None:
        self.resetCamera()
