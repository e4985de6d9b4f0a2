"""Scenes and segmentations as files that 3D Slicer opens: ``.mrb`` and ``.seg.nrrd``."""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.errors import CohortError, SSLSegError
from SSLSegLib.files import atomic_path
from SSLSegLib.progress import Progress, silent
from SSLSegLib.pseudolabels.storage import list_results
from SSLSegLib.scene.cases import CaseNodes, add_case, case_nodes
from SSLSegLib.scene.embedded import current_scene, import_slicer, private_scene

__all__ = ["read_scene", "read_segmentation", "save_scene", "write_scene", "write_segmentation"]


def write_scene(
    path: Path,
    cohort: Cohort,
    results: Path | None = None,
    *,
    cases: Sequence[str] | None = None,
    progress: Progress = silent,
) -> Path:
    """Write a cohort with its results as one scene file.

    Each case has a folder with its image, the expert's label of labelled cases, and pseudo-label and uncertainty of
    cases with a result. The first pseudo-label is visible, the others are switched on where they are wanted. The
    current scene is not touched. All cases are in memory at once: name some of them for large cohorts.

    Args:
        path: Ends in ``.mrb``; replaced as a whole.
        cohort: What to write.
        results: A job's ``results`` folder.
        cases: Ids of the cases to write; all by default.
        progress: Hears ``progress`` events with stage ``scene``.

    Raises:
        CaseError: Where a file of a case cannot be read or lies in another grid.
        CohortError: Where there is no case to write, or no such case.
    """
    path = _with_ending(path, ".mrb")
    chosen = [cohort.case(identifier) for identifier in cases] if cases is not None else list(cohort.cases)
    if not chosen:
        raise CohortError("There is no case to write to a scene.", remedy="Add cases to the cohort.")
    finished = list_results(Path(results)) if results is not None else {}
    with private_scene() as scene:
        shown = False
        for done, case in enumerate(chosen, start=1):
            nodes = add_case(scene, cohort, case, Path(results) / case.id if case.id in finished else None)
            for node in filter(None, (nodes.label, nodes.pseudo_label)):
                first = node is nodes.pseudo_label and not shown
                node.GetDisplayNode().SetVisibility(first)
                shown = shown or first
            progress("progress", stage="scene", done=done, total=len(chosen), case=case.id)
        save_scene(scene, path)
    return path


def save_scene(scene: Any, path: Path) -> None:
    """Write a scene with all its data as ``.mrb``, whole or not at all.

    Raises:
        SSLSegError: Where Slicer reports that it could not write.
    """
    path = _with_ending(path, ".mrb")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Slicer names the folder inside the archive after the file: so it is written under its own name, then moved.
    with TemporaryDirectory(prefix=".tmp-", dir=path.parent) as folder:
        scene.SetRootDirectory(folder)
        written = Path(folder) / path.name
        messages = import_slicer().vtkMRMLMessageCollection()
        if not scene.WriteToMRB(str(written), None, messages) or not written.is_file():
            reason = messages.GetAllMessagesAsString() or "Slicer gives no reason"
            raise SSLSegError(
                f"The scene {path.name} could not be written: {reason}.",
                remedy="Check that the disk has room and the folder can be written to.",
            )
        with atomic_path(path) as temporary:
            os.replace(written, temporary)


def read_scene(path: Path, *, scene: Any = None) -> dict[str, CaseNodes]:
    """Add a scene file's nodes to a scene and return those of each case.

    Args:
        path: An ``.mrb`` file.
        scene: The scene to add to; the current one by default. What is in it stays.

    Returns:
        The new nodes of each case that this software wrote, by case id.

    Raises:
        SSLSegError: Where the file is missing, is no scene, or Slicer cannot read it whole.
    """
    path = Path(path)
    if not zipfile.is_zipfile(path):
        state = "is not a scene file" if path.exists() else "does not exist"
        raise SSLSegError(f"{path} {state}.", remedy="Choose an .mrb file that was written completely.")
    scene = current_scene() if scene is None else scene
    before = {scene.GetNthNode(index).GetID() for index in range(scene.GetNumberOfNodes())}
    messages = import_slicer().vtkMRMLMessageCollection()
    if not scene.ReadFromMRB(str(path), False, messages):
        reason = messages.GetAllMessagesAsString() or "Slicer gives no reason"
        raise SSLSegError(
            f"{path.name} could not be read: {reason}.",
            remedy="Write the scene again from the job's results.",
        )
    nodes = [scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes())]
    return case_nodes([node for node in nodes if node.GetID() not in before])


def write_segmentation(path: Path, node: Any) -> Path:
    """Write a segmentation node as ``.seg.nrrd``, with its names, colours, codes and marks.

    The node's own storage (where the user saved it) is left as it is.

    Raises:
        SSLSegError: Where Slicer cannot write it.
    """
    path = _with_ending(path, ".seg.nrrd")
    storage = import_slicer().vtkMRMLSegmentationStorageNode()
    with atomic_path(path) as temporary:
        storage.SetFileName(str(temporary))
        if not storage.WriteData(node):
            raise SSLSegError(
                f"The segmentation “{node.GetName()}” could not be written to {path}.",
                remedy="Check that it has voxels, that the disk has room and that the folder can be written to.",
            )
    return path


def read_segmentation(path: Path, *, scene: Any = None) -> Any:
    """A new segmentation node with the segments of a ``.seg.nrrd`` file.

    Raises:
        SSLSegError: Where the file is missing or cannot be read; no node is left behind.
    """
    path = Path(path)
    scene = current_scene() if scene is None else scene
    name = path.name.removesuffix(".seg.nrrd")
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", scene.GenerateUniqueName(name))
    storage = import_slicer().vtkMRMLSegmentationStorageNode()
    storage.SetFileName(str(path))
    if not path.is_file() or not storage.ReadData(node):
        scene.RemoveNode(node)
        raise SSLSegError(f"The segmentation {path} cannot be read.", remedy="Choose a .seg.nrrd file.")
    node.CreateDefaultDisplayNodes()
    return node


def _with_ending(path: Path, ending: str) -> Path:
    path = Path(path)
    if not path.name.lower().endswith(ending):
        raise SSLSegError(f"{path.name} does not end in {ending}.", remedy=f"Name the file {path.name}{ending}.")
    return path
