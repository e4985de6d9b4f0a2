"""Images between arrays and MRML volume nodes, voxel for voxel, whatever the grid's direction or spacing."""

from collections.abc import Sequence
from math import log
from typing import Any, Literal

import numpy as np

from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.volume import Volume
from SSLSegLib.errors import CaseError
from SSLSegLib.scene.embedded import current_scene, import_slicer
from SSLSegLib.scene.grids import in_grid_of
from SSLSegLib.scene.voxels import ReadyImage, copied_voxels, ready_image, voxels_of

__all__ = [
    "UNCERTAINTY_MAXIMUM",
    "ParentTransform",
    "image_to_node",
    "node_geometry",
    "node_to_volume",
    "node_voxels",
    "numpy_matrix",
    "reordered",
    "uncertainty_image_to_node",
    "uncertainty_to_node",
    "volume_to_node",
    "vtk_matrix",
]

ParentTransform = Literal["refuse", "harden", "ignore"]
"""What to do with a node under a parent transform: refuse it, work on a hardened copy, or stay in its own frame."""

UNCERTAINTY_MAXIMUM = log(2.0)
"""Largest binary entropy in nats, at p = 1/2: the fixed upper end of the uncertainty colour scale."""

_UNCERTAINTY_COLORS = "SSLSegUncertainty"
# Dark violet over red and orange to pale yellow: lightness rises evenly, so the order also holds in grey print.
_SCALE = np.array([[0.05, 0.03, 0.2], [0.4, 0.05, 0.43], [0.74, 0.21, 0.33], [0.95, 0.5, 0.1], [0.99, 0.99, 0.7]])


def volume_to_node(volume: Volume, name: str, *, channel: int = 0, scene: Any = None) -> Any:
    """A new ``vtkMRMLScalarVolumeNode`` that shows one channel of an image.

    Whole numbers are kept as int16 where they fit (a quarter of a cohort's memory and file size), others as float32.

    Args:
        volume: The image, (C, K, J, I).
        name: Wished node name; made unique where the scene has one like it.
        channel: Which of the C channels.
        scene: The scene to add it to; the current one by default.
    """
    return image_to_node(ready_image(volume.array[channel], volume.geometry), name, scene=scene)


def image_to_node(ready: ReadyImage, name: str, *, scene: Any = None) -> Any:
    """:func:`volume_to_node` with voxels that a thread has made ready: takes no time itself, whatever their number."""
    scene = current_scene() if scene is None else scene
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", scene.GenerateUniqueName(name))
    # Left to itself, a display node counts all voxels for its window and level, on the thread that shows the panel.
    display = scene.AddNewNodeByClass("vtkMRMLScalarVolumeDisplayNode")
    display.AutoWindowLevelOff()
    display.AutoThresholdOff()
    display.SetWindowLevelMinMax(*ready.shown)
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeGrey")
    node.SetAndObserveImageData(ready.image)
    node.SetIJKToRASMatrix(vtk_matrix(ready.geometry.ijk_to_ras))
    node.SetAndObserveDisplayNodeID(display.GetID())
    return node


def uncertainty_to_node(array: np.ndarray, geometry: Geometry, name: str, *, scene: Any = None) -> Any:
    """A new volume node of binary entropies in nats, shown on a colour scale fixed at 0 to ln 2 in every case.

    Args:
        array: float (K, J, I), 0 to ln 2.
        geometry: The grid it lies in.
        name: Wished node name.
        scene: The scene to add it to; the current one by default.
    """
    ready = ready_image(np.asarray(array, dtype=np.float32), geometry, integers=False)
    return uncertainty_image_to_node(ready, name, scene=scene)


def uncertainty_image_to_node(ready: ReadyImage, name: str, *, scene: Any = None) -> Any:
    """:func:`uncertainty_to_node` with entropies that a thread has made ready."""
    node = image_to_node(ready, name, scene=scene)
    node.SetAttribute("SSLSeg.Uncertainty", "1")
    node.SetVoxelValueUnits(None)
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(_uncertainty_colors(node.GetScene()).GetID())
    display.SetWindowLevelMinMax(0.0, UNCERTAINTY_MAXIMUM)
    display.SetThreshold(0.02 * UNCERTAINTY_MAXIMUM, 2 * UNCERTAINTY_MAXIMUM)  # the image shows where all is certain
    display.ApplyThresholdOn()
    display.InterpolateOff()
    return node


def node_to_volume(
    nodes: Any | Sequence[Any], *, transform: ParentTransform = "refuse", like: Geometry | None = None
) -> Volume:
    """The image of a volume node, or of several nodes that are the channels of one image.

    Args:
        nodes: A ``vtkMRMLScalarVolumeNode`` or a sequence of them, one per channel.
        transform: ``refuse`` raises for a node under a parent transform. ``harden`` reads what hardening a copy
            would give: the same voxels in the moved grid. ``ignore`` reads the node in its own frame.
        like: A grid of the same voxels in the wished order, such as that of the file the node was loaded from:
            Slicer reverses the slices of left-handed images.

    Raises:
        CaseError: For a node without voxels, with colours or vectors instead of one number a voxel, under a
            transform that is refused or bends space, for channels of different grids, or where ``like`` has other
            voxels.
    """
    channels = [_read_channel(node, transform) for node in (nodes if isinstance(nodes, Sequence) else [nodes])]
    first = channels[0]
    for number, other in enumerate(channels[1:], start=2):
        if not other.geometry.matches(first.geometry):
            raise CaseError(
                f"Channel {number} lies in another grid than channel 1: {other.geometry.difference(first.geometry)}.",
                remedy="Resample it to the first channel's volume (Resample Scalar/Vector/DWI Volume module).",
            )
    arrays = [channel.array for channel in channels]
    volume = Volume(arrays[0] if len(arrays) == 1 else np.concatenate(arrays), first.geometry)
    return volume if like is None else Volume(reordered(volume.array, volume.geometry, like), like)


def node_voxels(node: Any, *, transform: ParentTransform = "refuse") -> tuple[np.ndarray, Geometry]:
    """The voxels of one volume node as they are now, copied in their own type, and their grid.

    The quick part of :func:`node_to_volume`, for the thread that owns the scene; another may convert and write them.

    Raises:
        CaseError: As there.
    """
    _require_scalars(node)
    geometry = node_geometry(node, transform=transform)
    return copied_voxels(node.GetImageData()), geometry


def node_geometry(node: Any, *, transform: ParentTransform = "refuse") -> Geometry:
    """The grid of a volume node: in its own frame (``ignore``) or, through a linear parent transform, in the world's.

    Raises:
        CaseError: For a node without voxels, or under a transform that is refused or not linear.
    """
    vtk_image = node.GetImageData()
    if vtk_image is None or 0 in vtk_image.GetDimensions():
        raise CaseError(f"The volume “{node.GetName()}” has no voxels.", remedy="Load its file again.")
    matrix = _matrix_of(node)
    parent = node.GetParentTransformNode()
    if parent is not None and transform != "ignore":
        if transform == "refuse":
            raise CaseError(
                f"The volume “{node.GetName()}” lies under the transform “{parent.GetName()}”.",
                remedy="Harden the transform (right-click the volume in the Data module), take the volume out of it, "
                "or ask for a hardened copy.",
            )
        if not parent.IsTransformToWorldLinear():
            raise CaseError(
                f"The transform “{parent.GetName()}” of the volume “{node.GetName()}” bends space: the grid is no "
                "longer a grid.",
                remedy="Harden the transform in the Data module; that resamples the volume.",
            )
        matrix = _to_world(parent) @ matrix
    return Geometry(vtk_image.GetDimensions()[::-1], matrix)


def reordered(array: np.ndarray, geometry: Geometry, like: Geometry) -> np.ndarray:
    """:func:`SSLSegLib.scene.grids.in_grid_of`, contiguous, and an error where the voxels are others."""
    found = in_grid_of(array, geometry, like)
    if found is None:
        raise CaseError(
            f"The volume does not have the voxels of the wished grid: {geometry.difference(like)}.",
            remedy="Use the volume that was loaded from the case's file.",
        )
    return np.ascontiguousarray(found)


def _read_channel(node: Any, transform: ParentTransform) -> Volume:
    _require_scalars(node)
    geometry = node_geometry(node, transform=transform)
    return Volume(voxels_of(node.GetImageData()).astype(np.float32)[None], geometry)


def _require_scalars(node: Any) -> None:
    vtk_image = node.GetImageData()
    if vtk_image is not None and vtk_image.GetNumberOfScalarComponents() != 1:
        raise CaseError(
            f"The volume “{node.GetName()}” ({node.GetClassName()}) has {vtk_image.GetNumberOfScalarComponents()} "
            "numbers a voxel.",
            remedy="Convert it to one scalar volume per channel (Vector to Scalar Volume module).",
        )


def _uncertainty_colors(scene: Any) -> Any:
    """The scene's one colour table for uncertainty; a singleton, so that loading a scene twice does not double it."""
    existing = scene.GetSingletonNode(_UNCERTAINTY_COLORS, "vtkMRMLColorTableNode")
    if existing is not None:
        return existing
    colors = import_slicer().vtkMRMLColorTableNode()
    colors.SetName("Uncertainty (0 to ln 2)")
    colors.SetSingletonTag(_UNCERTAINTY_COLORS)
    colors.SetTypeToUser()
    colors.SetNumberOfColors(256)
    at = np.linspace(0, 1, 256)
    for index, position in enumerate(at):
        red, green, blue = (np.interp(position, np.linspace(0, 1, len(_SCALE)), band) for band in _SCALE.T)
        colors.SetColor(index, f"{position * UNCERTAINTY_MAXIMUM:.3f}", red, green, blue, 1.0)
    scene.AddNode(colors)
    return colors


def vtk_matrix(matrix: np.ndarray) -> Any:
    """A ``vtkMatrix4x4`` of a (4, 4) array."""
    import vtk

    result = vtk.vtkMatrix4x4()
    result.DeepCopy(np.asarray(matrix, dtype=np.float64).ravel().tolist())
    return result


def numpy_matrix(matrix: Any) -> np.ndarray:
    """A (4, 4) float64 array of a ``vtkMatrix4x4``."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def _matrix_of(node: Any) -> np.ndarray:
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return numpy_matrix(matrix)


def _to_world(transform_node: Any) -> np.ndarray:
    import vtk

    matrix = vtk.vtkMatrix4x4()
    transform_node.GetMatrixTransformToWorld(matrix)
    return numpy_matrix(matrix)
