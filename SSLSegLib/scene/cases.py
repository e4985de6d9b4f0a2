"""Cases and their results as groups of nodes, each case in its folder or beside the volume it belongs to."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.reading import read_image, read_label, read_label_file, read_volume
from SSLSegLib.cases.volume import LabelMap, Volume
from SSLSegLib.errors import CaseError
from SSLSegLib.pseudolabels.storage import LABELS, UNCERTAINTY, ResultRecord, read_result
from SSLSegLib.scene.grids import in_grid_of
from SSLSegLib.scene.hierarchy import place_beside, place_in_case_folder
from SSLSegLib.scene.marks import PREFIX, PseudoLabelMarks
from SSLSegLib.scene.segmentations import label_to_segmentation_node
from SSLSegLib.scene.volumes import image_to_node, node_geometry, reordered, uncertainty_image_to_node
from SSLSegLib.scene.voxels import ReadyImage, ready_image

__all__ = [
    "CaseFiles",
    "CaseNodes",
    "ResultFiles",
    "add_case",
    "add_result",
    "add_result_steps",
    "case_nodes",
    "read_case",
    "read_result_files",
]

_PART = f"{PREFIX}Part"
_CASE = f"{PREFIX}CaseID"
_CHANNEL = f"{PREFIX}Channel"


@dataclass
class CaseNodes:
    """The nodes of one case in a scene.

    Attributes:
        volumes: The image, one node per channel.
        label: The expert's segmentation, or None.
        pseudo_label: The method's segmentation, or None.
        uncertainty: The uncertainty volume that goes with it, or None.
    """

    case_id: str
    volumes: list[Any] = field(default_factory=list)
    label: Any = None
    pseudo_label: Any = None
    uncertainty: Any = None


@dataclass(frozen=True, eq=False)
class CaseFiles:
    """What the files of a case hold, ready for a scene: one image a channel, and the expert's label."""

    geometry: Geometry
    channels: tuple[ReadyImage, ...]
    label: LabelMap | None


@dataclass(frozen=True, eq=False)
class ResultFiles:
    """What the files of a result hold, with the grid in double precision."""

    record: ResultRecord
    label: LabelMap
    uncertainty: Volume
    shown: ReadyImage | None = None
    """The uncertainty in the grid of the volume node it is for, where that was known."""


def read_case(cohort: Cohort, case: Case) -> CaseFiles:
    """A case's image, and its label where it is a labelled case. Touches no scene: a thread may do it.

    Raises:
        CaseError: Where a file cannot be read or lies in another grid.
    """
    volume = read_volume(cohort, case)
    label = read_label(cohort, case) if case.label is not None else None
    return CaseFiles(volume.geometry, tuple(ready_image(each, volume.geometry) for each in volume.array), label)


def read_result_files(
    result_folder: Path, classes: tuple[SegmentClass, ...], grid: Geometry | None = None
) -> ResultFiles:
    """The files of a finished result. Touches no scene: a thread may do it.

    Args:
        result_folder: The case's folder in a job's ``results/``.
        classes: The cohort's classes.
        grid: That of the volume node that the result will be shown on, if known: its order of the voxels is taken.

    Raises:
        CaseError: Where a file cannot be read or the files lie in different grids.
    """
    record = read_result(result_folder)
    label = read_label_file(Path(result_folder) / LABELS, classes, case_id=record.case_id)
    uncertainty = read_image(Path(result_folder) / UNCERTAINTY, case_id=record.case_id)
    # The record keeps the grid in double precision, the NIfTI files in single precision.
    label = LabelMap(label.array, _same_grid(label.geometry, record, LABELS))
    uncertainty = Volume(uncertainty.array, _same_grid(uncertainty.geometry, record, UNCERTAINTY))
    grid = record.geometry if grid is None else grid
    array = in_grid_of(uncertainty.array[0], record.geometry, grid)
    shown = None if array is None else ready_image(np.ascontiguousarray(array, np.float32), grid, integers=False)
    return ResultFiles(record, label, uncertainty, shown)


def add_case(
    scene: Any,
    cohort: Cohort,
    case: Case,
    result_folder: Path | None = None,
    *,
    read: CaseFiles | None = None,
) -> CaseNodes:
    """Add a case's image, its label where it is a labelled case, and its result where there is one.

    Args:
        scene: The scene to add new nodes to, in a subject hierarchy folder named like the case.
        cohort: The cohort of the case.
        case: The case. A reference that only scores is not shown.
        result_folder: The case's folder in a job's ``results/``.
        read: From :func:`read_case`, where the files were read before.

    Raises:
        CaseError: Where a file cannot be read or lies in another grid.
    """
    files = read or read_case(cohort, case)
    nodes = CaseNodes(case.id)
    for channel, ready in enumerate(files.channels):
        name = case.id if channel == 0 else f"{case.id} channel {channel + 1}"
        node = image_to_node(ready, name, scene=scene)
        if cohort.window is not None:
            node.GetDisplayNode().AutoWindowLevelOff()
            node.GetDisplayNode().SetWindowLevel(cohort.window.width, cohort.window.level)
        node.SetAttribute(_CHANNEL, str(channel))
        _file_under(node, case.id, "image")
        nodes.volumes.append(node)
    if files.label is not None:
        nodes.label = label_to_segmentation_node(files.label, cohort.classes, nodes.volumes[0], f"{case.id} label")
        _file_under(nodes.label, case.id, "label")
    if result_folder is not None:
        result = add_result(nodes.volumes[0], result_folder, cohort.classes)
        nodes.pseudo_label, nodes.uncertainty = result.pseudo_label, result.uncertainty
        for node, part in ((nodes.pseudo_label, "pseudo-label"), (nodes.uncertainty, "uncertainty")):
            _file_under(node, case.id, part)
    return nodes


def add_result(
    volume_node: Any,
    result_folder: Path,
    classes: tuple[SegmentClass, ...],
    *,
    read: ResultFiles | None = None,
) -> CaseNodes:
    """Show a finished result on the volume it was made for, in new nodes beside it in the subject hierarchy.

    Args:
        volume_node: The image; it is not touched.
        result_folder: The case's folder in a job's ``results/``.
        classes: The cohort's classes.
        read: From :func:`read_result_files`, where the files were read before.

    Returns:
        The new segmentation and uncertainty nodes; ``volumes`` holds the given node.

    Raises:
        CaseError: Where a file cannot be read, or lies in another grid than the volume: nothing is shown then.
    """
    files = read or read_result_files(result_folder, classes)
    *_, nodes = add_result_steps(volume_node, classes, files)
    return nodes


def add_result_steps(volume_node: Any, classes: tuple[SegmentClass, ...], files: ResultFiles) -> Iterator[CaseNodes]:
    """:func:`add_result` with a pause between its two nodes; yields what there is so far, the last time all of it."""
    marks = PseudoLabelMarks.from_provenance(files.record.case_id, files.record.provenance)
    name = volume_node.GetName()
    nodes = CaseNodes(marks.case_id, volumes=[volume_node])
    nodes.pseudo_label = label_to_segmentation_node(
        files.label, classes, volume_node, f"{name} pseudo-label", marks=marks
    )
    nodes.pseudo_label.SetAttribute(_PART, "pseudo-label")
    place_beside(nodes.pseudo_label, volume_node)
    yield nodes
    nodes.uncertainty = _show_uncertainty(files, name, nodes, marks)
    yield nodes


def case_nodes(nodes: list[Any]) -> dict[str, CaseNodes]:
    """Sort nodes that this software made into their cases, by their attributes; others are left out."""
    cases: dict[str, CaseNodes] = {}
    for node in nodes:
        case_id, part = node.GetAttribute(_CASE), node.GetAttribute(_PART)
        if case_id is None or part is None:
            continue
        case = cases.setdefault(case_id, CaseNodes(case_id))
        if part == "image":
            case.volumes.append(node)
        elif part == "label":
            case.label = node
        elif part == "pseudo-label":
            case.pseudo_label = node
        elif part == "uncertainty":
            case.uncertainty = node
    for case in cases.values():
        case.volumes.sort(key=lambda node: int(node.GetAttribute(_CHANNEL) or 0))
    return cases


def _show_uncertainty(files: ResultFiles, name: str, nodes: CaseNodes, marks: PseudoLabelMarks) -> Any:
    volume_node, segmentation_node = nodes.volumes[0], nodes.pseudo_label
    # The segmentation has been accepted on this volume: in the same frame, the voxels are the same too.
    under_same_transform = segmentation_node.GetTransformNodeID() is not None or not volume_node.GetTransformNodeID()
    grid = node_geometry(volume_node, transform="ignore" if under_same_transform else "harden")
    ready = files.shown
    if ready is None or not ready.geometry.matches(grid):
        array = reordered(files.uncertainty.array[0], files.uncertainty.geometry, grid)
        ready = ready_image(array.astype(np.float32, copy=False), grid, integers=False)
    node = uncertainty_image_to_node(ready, f"{name} uncertainty", scene=volume_node.GetScene())
    node.SetAndObserveTransformNodeID(segmentation_node.GetTransformNodeID())
    for attribute, value in marks.attributes().items():
        if attribute != f"{PREFIX}Kind":  # that one says: these are labels
            node.SetAttribute(attribute, value)
    node.SetAttribute(_PART, "uncertainty")
    place_beside(node, volume_node)
    return node


def _file_under(node: Any, case_id: str, part: str) -> None:
    node.SetAttribute(_PART, part)
    place_in_case_folder(node, case_id)


def _same_grid(geometry: Geometry, record: ResultRecord, name: str) -> Geometry:
    if not geometry.matches(record.geometry):
        raise CaseError(
            f"{name} is not in the grid of the result: {geometry.difference(record.geometry)}.",
            case_id=record.case_id,
            remedy="Run the case again.",
        )
    return record.geometry
