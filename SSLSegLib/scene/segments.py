"""The voxels of segments: copied on the thread that owns the scene, put together as one label map on any."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.errors import CaseError
from SSLSegLib.scene.embedded import import_slicer
from SSLSegLib.scene.volumes import numpy_matrix, reordered
from SSLSegLib.scene.voxels import copied_voxels, voxels_of

__all__ = ["SegmentPart", "SegmentsAsLabel", "binary_labelmap", "segment_parts_steps"]

_SAME = 1e-4  # mm: grids that differ by less are the same, as Slicer's own comparison has it


@dataclass(frozen=True, eq=False)
class SegmentPart:
    """One segment: where a copied layer holds a value.

    Attributes:
        segment_class: The class that it shows.
        layer: (K, J, I) voxels, shared with other segments of the same layer; None for a segment without voxels.
        value: The segment's value in the layer; None: any but 0.
        start: (k, j, i) of the layer's first voxel in the wished grid; may be negative.
    """

    segment_class: SegmentClass
    layer: np.ndarray | None
    value: int | None = None
    start: tuple[int, int, int] = (0, 0, 0)

    def draw(self, array: np.ndarray) -> tuple[tuple[slice, ...], np.ndarray] | None:
        """The part of the array that the layer covers, and where the segment is in it."""
        if self.layer is None:
            return None
        target, source = [], []
        for first, length, size in zip(self.start, self.layer.shape, array.shape, strict=True):
            low, high = max(first, 0), min(first + length, size)
            if low >= high:
                return None
            target.append(slice(low, high))
            source.append(slice(low - first, high - first))
        layer = self.layer[tuple(source)]
        return tuple(target), layer > 0 if self.value is None else layer == self.value


@dataclass(frozen=True, eq=False)
class SegmentsAsLabel:
    """Segments that were copied out of a scene, on the way to a label map.

    Attributes:
        parts: The segments in the order of the classes.
        geometry: The grid of the volume.
        name: Name of the segmentation, for messages.
        overlap: Whether voxels of two segments are refused or go to the later class.
        like: The wished order of the voxels; the volume's by default.
    """

    parts: tuple[SegmentPart, ...]
    geometry: Geometry
    name: str
    overlap: Literal["refuse", "last"] = "refuse"
    like: Geometry | None = None

    def label_map(self) -> LabelMap:
        """The label map; a thread may make it.

        Raises:
            CaseError: Segments overlap, or ``like`` has other voxels than the volume.
        """
        array = np.zeros(self.geometry.shape, dtype=np.uint8)
        for part in self.parts:
            drawn = part.draw(array)
            if drawn is None:
                continue
            place, mask = drawn
            region = array[place]
            doubly = mask & (region > 0)
            if self.overlap == "refuse" and doubly.any():
                self._refuse(part.segment_class, int(doubly.sum()), set(np.unique(region[doubly]).tolist()))
            region[mask] = part.segment_class.value
        if self.like is None:
            return LabelMap(array, self.geometry)
        return LabelMap(reordered(array, self.geometry, self.like), self.like)

    def _refuse(self, segment_class: SegmentClass, count: int, values: set[int]) -> None:
        others = [part.segment_class.name for part in self.parts if part.segment_class.value in values]
        raise CaseError(
            f"In the segmentation “{self.name}” {count} voxels belong to {segment_class.name} and to "
            f"{' and '.join(others)}.",
            remedy="Remove the overlap in the Segment Editor (Logical operators, subtract).",
        )


def segment_parts_steps(
    node: Any, wanted: Mapping[SegmentClass, str], volume_node: Any, geometry: Geometry
) -> Generator[None, None, tuple[SegmentPart, ...]]:
    """Copy the wanted segments, with a pause after each.

    A layer in the very grid of the volume is copied as it is, once for all its segments; Slicer resamples the others.

    Args:
        node: The segmentation node.
        wanted: Class -> segment id.
        volume_node: The image whose grid the label is for.
        geometry: That grid.

    Raises:
        CaseError: Slicer gives no voxels for a segment.
    """
    readable = _with_binary_labelmap(node)
    in_place = node.GetParentTransformNode() is None and volume_node.GetParentTransformNode() is None
    layers: list[tuple[Any, np.ndarray]] = []  # images and their copies
    parts = []
    for segment_class, identifier in wanted.items():
        segment = readable.GetSegmentation().GetSegment(identifier)
        image = segment.GetRepresentation(binary_labelmap())
        start = _start(image, geometry) if in_place and image is not None else None
        if start is None:
            mask = _resampled(readable, identifier, volume_node, geometry)
            parts.append(SegmentPart(segment_class, mask))
        elif image.GetPointData().GetScalars() is None or 0 in image.GetDimensions():
            parts.append(SegmentPart(segment_class, None))
        else:
            layer = next((copy for known, copy in layers if known is image), None)
            if layer is None:
                layer = copied_voxels(image)
                layers.append((image, layer))
            parts.append(SegmentPart(segment_class, layer, segment.GetLabelValue(), start))
        yield
    return tuple(parts)


def binary_labelmap() -> str:
    """Slicer's name for segments as voxels."""
    return import_slicer().vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()


def _start(image: Any, geometry: Geometry) -> tuple[int, int, int] | None:
    """(k, j, i) of a layer's first voxel in the grid, or None where it lies in another grid."""
    import vtk

    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    own, wished = numpy_matrix(matrix), geometry.ijk_to_ras
    steps = np.abs(own[:3, :3] - wished[:3, :3]) * np.array(geometry.shape[::-1])  # at the far end of each axis
    if steps.max() > _SAME:
        return None
    offset = np.linalg.inv(wished) @ own[:, 3]
    whole = np.round(offset[:3])
    if np.abs(wished[:3, :3] @ (offset[:3] - whole)).max() > _SAME:
        return None
    extent = image.GetExtent()
    first = [int(whole[axis]) + extent[2 * axis] for axis in range(3)]
    return first[2], first[1], first[0]


def _resampled(node: Any, segment_id: str, volume_node: Any, geometry: Geometry) -> np.ndarray:
    import vtk

    slicer = import_slicer()
    identifiers = vtk.vtkStringArray()
    identifiers.InsertNextValue(segment_id)
    merged = slicer.vtkOrientedImageData()
    slicer.vtkSlicerSegmentationsModuleLogic.GenerateMergedLabelmapInReferenceGeometry(
        node, volume_node, identifiers, slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY, merged, None
    )
    if merged.GetDimensions()[::-1] != geometry.shape:  # Slicer reports nothing, it leaves the output empty
        raise CaseError(
            f"The segment {segment_id} of “{node.GetName()}” cannot be read in the grid of “{volume_node.GetName()}”.",
            remedy="Check that the segmentation has voxels and lies on the volume.",
        )
    return voxels_of(merged) > 0


def _with_binary_labelmap(node: Any) -> Any:
    """The node, or a copy outside the scene where voxels must first be made of surfaces."""
    if node.GetSegmentation().ContainsRepresentation(binary_labelmap()):
        return node
    slicer = import_slicer()
    copy = slicer.vtkMRMLSegmentationNode()
    copy.SetName(node.GetName())
    copy.GetSegmentation().DeepCopy(node.GetSegmentation())
    copy.GetSegmentation().CreateRepresentation(binary_labelmap())
    return copy
