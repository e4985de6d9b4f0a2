"""MRML without the Slicer application: what Slicer does at start-up, done for the ``slicer-core`` wheel.

Inside the application every function here stands aside and hands out the application's own scene.
"""

import atexit
import shutil
import sys
import tempfile
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from SSLSegLib.errors import SSLSegError
from SSLSegLib.resources import resource

__all__ = ["EmbeddedSlicer", "current_scene", "embedded", "in_application", "private_scene", "start"]

LOGIC_CLASSES = {
    "Cameras": "vtkSlicerCamerasModuleLogic",
    "Colors": "vtkSlicerColorLogic",  # reads the colour files, which the application logic's own colour logic does not
    "CropVolume": "vtkSlicerCropVolumeLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Models": "vtkSlicerModelsLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",  # registers the segmentation converters as well
    "Sequences": "vtkSlicerSequencesLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Units": "vtkSlicerUnitsLogic",
    "VolumeRendering": "vtkSlicerVolumeRenderingLogic",
    "Volumes": "vtkSlicerVolumesLogic",
}
"""Module logics by module name, as the application names them."""

DATA_CLASSES = (
    "vtkMRMLVolumeNode",
    "vtkMRMLSegmentationNode",
    "vtkMRMLModelNode",
    "vtkMRMLMarkupsNode",
    "vtkMRMLTransformNode",
    "vtkMRMLTableNode",
    "vtkMRMLTextNode",
    "vtkMRMLPlotChartNode",
    "vtkMRMLSequenceNode",
    "vtkMRMLSequenceBrowserNode",
)
"""Nodes that show in the subject hierarchy."""


@dataclass
class EmbeddedSlicer:
    """The parts of Slicer that live in this process when the application does not."""

    scene: Any
    application_logic: Any
    temporary_folder: str
    logics: dict[str, Any] = field(default_factory=dict)
    keep_alive: list[Any] = field(default_factory=list)


_embedded: EmbeddedSlicer | None = None


def import_slicer() -> types.ModuleType:
    """Import ``slicer``; an error with the way out where the wheel is not installed."""
    try:
        import slicer
    except ImportError as reason:
        raise SSLSegError(
            f"MRML scenes need Slicer or its Python package ({reason}).",
            remedy="Install it with: python -m pip install slicer-core, or run inside 3D Slicer.",
        ) from reason
    return slicer


def in_application() -> bool:
    """True inside 3D Slicer (or a host that stands for it): there is a ``slicer.app`` that owns the scene."""
    slicer = sys.modules.get("slicer")
    return slicer is not None and getattr(slicer, "app", None) is not None


def embedded() -> EmbeddedSlicer | None:
    """What :func:`start` has set up in this process, or None."""
    return _embedded


def current_scene() -> Any:
    """The scene to work in: the application's, or the embedded one, started on first use."""
    return import_slicer().mrmlScene if in_application() else start().scene


def start() -> EmbeddedSlicer:
    """Set up scene, application logic and module logics in this process, once; later calls return the same.

    Afterwards ``slicer.mrmlScene``, ``slicer.modules.<name>.logic()`` and the file-free part of ``slicer.util`` work.

    Raises:
        SSLSegError: Inside the application, which has all that already, or without the ``slicer-core`` wheel.
    """
    global _embedded
    if _embedded is not None:
        return _embedded
    slicer = import_slicer()
    if in_application():
        raise SSLSegError("Slicer is running already.", remedy="Use current_scene().")
    _hide_flattened_utilities(slicer)
    folder = tempfile.mkdtemp(prefix="sslseg-")
    atexit.register(shutil.rmtree, folder, True)

    scene = slicer.mrmlScene = slicer.vtkMRMLScene()
    application_logic = _application_logic(slicer, scene, folder)
    parts = EmbeddedSlicer(scene, application_logic, folder)
    _add_module_logics(slicer, parts)
    parts.keep_alive += _file_reading_logics(slicer, scene, application_logic, folder)
    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)  # makes the one subject hierarchy node
    _keep_hierarchy(slicer, scene)
    _embedded = parts
    return parts


@contextmanager
def private_scene() -> Iterator[Any]:
    """A scene of its own, with colours and MRB reading, for files that are made beside the user's scene."""
    current_scene()
    slicer = import_slicer()
    folder = tempfile.mkdtemp(prefix="sslseg-")
    scene = slicer.vtkMRMLScene()
    try:
        application_logic = _application_logic(slicer, scene, folder)
        kept = _file_reading_logics(slicer, scene, application_logic, folder)
        slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        yield scene
    finally:
        scene.Clear(1)
        kept = application_logic = None  # noqa: F841 - logics go before their scene
        shutil.rmtree(folder, ignore_errors=True)


def _hide_flattened_utilities(slicer: types.ModuleType) -> None:
    """The wheel copies ``slicer.util``'s functions into ``slicer``; the application does not, and code must not rely
    on it."""
    from slicer import util

    for name in dir(util):
        if not name.startswith("_") and getattr(slicer, name, None) is getattr(util, name):
            delattr(slicer, name)
    slicer.util = util


def _application_logic(slicer: types.ModuleType, scene: Any, folder: str) -> Any:
    """Application logic with colours, orientation presets and a crosshair, as the application makes them."""
    import vtk

    share = resource("slicer")
    logic = slicer.vtkSlicerApplicationLogic()
    logic.SetTemporaryPath(folder)
    logic.SetHomeDirectory(str(share.parent))  # before the colour logic gets its scene: it reads <home>/<share>
    logic.SetShareDirectory(share.name)
    logic.SetMRMLScene(scene)
    logic.GetColorLogic().SetMRMLScene(scene)
    logic.GetColorLogic().AddDefaultColorNodes()
    logic.SetSliceLogics(vtk.vtkCollection())
    logic.SetViewLogics(vtk.vtkCollection())
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)  # True: patient right is screen left
    crosshair = slicer.vtkMRMLCrosshairNode()
    crosshair.SetCrosshairName("default")
    scene.AddNode(crosshair)
    return logic


def _add_module_logics(slicer: types.ModuleType, parts: EmbeddedSlicer) -> None:
    slicer.modules = sys.modules["slicer.modules"] = types.ModuleType("slicer.modules")
    for name, class_name in LOGIC_CLASSES.items():
        logic = getattr(slicer, class_name)()
        if hasattr(logic, "SetModuleShareDirectory"):
            logic.SetModuleShareDirectory(str(resource("slicer") / name.lower()))
        logic.SetMRMLApplicationLogic(parts.application_logic)  # the order matters: this, then the scene
        logic.SetMRMLScene(parts.scene)
        parts.application_logic.SetModuleLogic(name, logic)
        parts.logics[name] = logic
        setattr(slicer.modules, name.lower(), types.SimpleNamespace(name=name, logic=lambda logic=logic: logic))


def _file_reading_logics(slicer: types.ModuleType, scene: Any, application_logic: Any, folder: str) -> list[Any]:
    """``vtkMRMLScene.ReadFromMRB`` wants a data manager, although nothing remote is read."""
    remote = slicer.vtkMRMLRemoteIOLogic()
    remote.SetMRMLScene(scene)
    remote.SetMRMLApplicationLogic(application_logic)
    remote.GetCacheManager().SetRemoteCacheDirectory(folder)
    manager = slicer.vtkDataIOManagerLogic()
    manager.SetMRMLScene(scene)
    manager.SetMRMLApplicationLogic(application_logic)
    manager.SetAndObserveDataIOManager(remote.GetDataIOManager())
    remote.AddDataIOToScene()
    return [remote, manager]


def _keep_hierarchy(slicer: types.ModuleType, scene: Any) -> None:
    """Every data node gets its subject hierarchy item, and takes it along: a Qt plugin's work in the application."""
    import vtk

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def added(scene: Any, event: str, node: Any) -> None:
        if node.GetHideFromEditors() or scene.IsImporting() or not any(node.IsA(name) for name in DATA_CLASSES):
            return
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        if not hierarchy.GetItemByDataNode(node):
            hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def about_to_be_removed(scene: Any, event: str, node: Any) -> None:
        if scene.IsClosing() or not any(node.IsA(name) for name in DATA_CLASSES):
            return
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
        if item := hierarchy.GetItemByDataNode(node):
            hierarchy.RemoveItem(item, False, False)  # neither the node, which is going anyway, nor its children

    scene.AddObserver(slicer.vtkMRMLScene.NodeAddedEvent, added)
    scene.AddObserver(slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, about_to_be_removed)
