"""Cohort files, folders, sequences and sample data as cases of the scene. No Qt."""

from pathlib import Path

import slicer
from slicer.i18n import tr as _

from SSLSegPanel.casenodes import CaseList

__all__ = [
    "SAMPLE_SEED",
    "add_sequence_steps",
    "add_volumes_of_scene",
    "load_cohort_steps",
    "load_steps",
    "sample_steps",
]

SAMPLE_SEED = 2026


def load_steps(source):
    """Load ``cohort.json``, or what lies in a folder, case by case. A generator; its value is the list of cases.

    Raises:
        SSLSegError: The cohort or a file cannot be read; cases before it are loaded.
    """
    from SSLSegLib.cases.cohort import Cohort
    from SSLSegLib.cases.discover import discover_cohort
    from SSLSegPanel.children import aside

    source = Path(source)
    known = source.is_file() or (source / "cohort.json").is_file()
    yield _("Looking at {name} …").format(name=source.name)
    cohort = yield from aside(Cohort.load if known else discover_cohort, source)
    return (yield from load_cohort_steps(cohort))


def load_cohort_steps(cohort):
    """The cases of a cohort as nodes, those that the scene has already left alone."""
    from SSLSegLib.scene.cases import add_case, read_case
    from SSLSegPanel.children import aside

    cases, loaded = CaseList(), []
    for number, case in enumerate(cohort.cases, start=1):
        yield _("Loading {n} of {all}: {name}").format(n=number, all=len(cohort.cases), name=case.id)
        there = cases.find(case.id)
        if there is not None and there.volume is not None and not there.missing_channels:
            loaded.append(there)
            continue
        if there is not None:
            cases.remove(there)  # a volume of it was deleted: load it anew
        read = yield from aside(read_case, cohort, case)
        with slicer.util.RenderBlocker():
            nodes = add_case(slicer.mrmlScene, cohort, case, read=read)
            if nodes.label is not None:
                nodes.label.GetDisplayNode().SetVisibility(False)  # shown when the case is
                _remember_pieces(nodes.label, cohort.classes)
            loaded.append(cases.add(nodes.volumes, role=case.role, segmentation=nodes.label, case_id=case.id))
    return loaded


def add_volumes_of_scene():
    """Every scalar volume that is in no case yet, with the segmentation that was drawn on it, if one was.

    Returns:
        The new cases: labelled where there is a segmentation, else unlabelled.
    """
    from SSLSegLib.scene.marks import is_pseudo_label

    cases, added = CaseList(), []
    segmentations = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    for volume in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if volume.IsA("vtkMRMLLabelMapVolumeNode") or volume.GetAttribute("SSLSeg.Uncertainty"):
            continue
        if volume.GetHideFromEditors() or cases.of_volume(volume) is not None:
            continue
        own = [
            node
            for node in segmentations
            if node.GetNodeReference("referenceImageGeometryRef") is volume and not is_pseudo_label(node)
        ]
        role = "labelled" if own else "unlabelled"
        added.append(cases.add(volume, role=role, segmentation=own[0] if own else None))
    return added


def add_sequence_steps(sequence):
    """The volumes of a sequence as unlabelled cases, each in a node of its own: the voxels are copied.

    A generator that pauses after each frame; its value is the list of cases.

    Raises:
        SSLSegError: It holds something else than scalar volumes; frames before that are added.
    """
    from SSLSegLib.errors import SSLSegError

    cases, added = CaseList(), []
    count = sequence.GetNumberOfDataNodes()
    for index in range(count):
        yield _("Adding frame {n} of {all}").format(n=index + 1, all=count)
        if sequence.GetScene() is None:
            raise SSLSegError(_("The sequence was deleted while its frames were added."))
        frame = sequence.GetNthDataNode(index)
        if frame is None or not frame.IsA("vtkMRMLScalarVolumeNode"):
            raise SSLSegError(
                _("The sequence “{name}” does not hold scalar volumes.").format(name=sequence.GetName()),
                remedy=_("Choose a sequence of volumes."),
            )
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", f"{sequence.GetName()} {index + 1:03d}")
        node.CopyContent(frame)
        node.CreateDefaultDisplayNodes()
        added.append(cases.add(node))
    return added


def sample_steps(folder):
    """Generated abdominal MR scans, three labelled and four not: made on this computer by a child, nothing is fetched.

    A generator; its value is the list of loaded cases.
    """
    from SSLSegPanel.children import child_steps

    folder = Path(folder) / "SSLSegPhantom"
    if not (folder / "cohort.json").is_file():
        yield _("Generating scans …")
        counts = ["--labelled", "3", "--unlabelled", "4", "--test", "0", "--seed", str(SAMPLE_SEED)]
        yield from child_steps(
            ["-m", "SSLSegLib", "phantom", str(folder), *counts], folder.parent / "SSLSegPhantom.log"
        )
    return (yield from load_steps(folder / "cohort.json"))


def _remember_pieces(node, classes):
    """What the cohort says about structures of several parts, on the segments that were made from it."""
    from SSLSegPanel.segment_classes import PIECES_TAG

    segmentation = node.GetSegmentation()
    for each in classes:
        segment = segmentation.GetSegment(segmentation.GetSegmentIdBySegmentName(each.name))
        if segment is not None and not each.largest_component:
            segment.SetTag(PIECES_TAG, "several")
