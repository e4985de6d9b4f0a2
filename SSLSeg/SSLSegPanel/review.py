"""What a person decides about a pseudo-label: kept on the node, on its segments and in the job's folder."""

from pathlib import Path

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

__all__ = [
    "STATES",
    "accept",
    "accept_steps",
    "begin_correction",
    "begin_correction_of",
    "being_corrected",
    "finish_correction",
    "finish_correction_steps",
    "reject",
    "restore_decision",
    "revert",
    "revert_steps",
    "review_state",
    "state_label",
    "uncertain_slices",
]

STATES = ("unreviewed", "editing", "accepted", "corrected", "rejected")
_ATTRIBUTE = "SSLSeg.Review"


def state_label(state):
    """A state in the user's language."""
    return {
        "unreviewed": _("To review"),
        "editing": _("Being corrected"),
        "accepted": _("Accepted"),
        "corrected": _("Corrected"),
        "rejected": _("Rejected"),
    }[state]


def review_state(node):
    """The state of a result's segmentation node, one of :data:`STATES`."""
    return node.GetAttribute(_ATTRIBUTE) or "unreviewed"


def accept(case):
    """:func:`accept_steps` at once."""
    _finish(accept_steps(case))


def accept_steps(case):
    """The label is right as it is. That of a round of self-training is kept beside the pseudo-label it improves on.

    A generator; it pauses only where there is a label to keep.
    """
    if case.result.GetAttribute("SSLSeg.Round") and Path(case.result_folder).is_dir():
        yield from _keep_label_steps(case)
        _save(case, "corrected")
        _mark(case.result, "accepted")
    else:
        _decide(case, "accepted")


def reject(case):
    """The pseudo-label is of no use: it is left out of refinement and export."""
    _decide(case, "rejected")


def begin_correction(case):
    """Mark the segmentation as being edited by a person; the editing itself is the Segment Editor's."""
    begin_correction_of(case.result)


def begin_correction_of(node):
    """:func:`begin_correction` of a result's segmentation node."""
    _mark(node, "editing")


def being_corrected(case, job):
    """Whether somebody draws on the result that a case has of the job in this folder."""
    if case.result is None or review_state(case.result) != "editing":
        return False
    return Path(job) in Path(case.result_folder).parents


def finish_correction(case):
    """:func:`finish_correction_steps` at once."""
    _finish(finish_correction_steps(case))


def finish_correction_steps(case):
    """Keep what was edited: written to the job's folder beside the pseudo-label, which stays as it was. A generator.

    Raises:
        SSLSegError: Segments overlap, the file cannot be written, or the segmentation was deleted meanwhile.
    """
    yield from _keep_label_steps(case)
    segmentation = case.result.GetSegmentation()
    for index in range(segmentation.GetNumberOfSegments()):
        segmentation.GetNthSegment(index).SetTag("DICOM.SegmentAlgorithmType", "SEMIAUTOMATIC")
    _decide(case, "corrected")


def _keep_label_steps(case):
    """Write the segmentation as it is now beside the pseudo-label."""
    from SSLSegLib.cases.writing import write_label
    from SSLSegLib.errors import SSLSegError
    from SSLSegLib.pseudolabels.review import CORRECTED_LABEL
    from SSLSegLib.pseudolabels.storage import read_result
    from SSLSegLib.scene.segmentations import read_segments_steps
    from SSLSegPanel.children import aside

    folder = Path(case.result_folder)
    if folder.is_dir():
        record = yield from aside(read_result, folder)
        copied = yield from read_segments_steps(case.result, case.volume, record.classes, like=record.geometry)
        label = yield from aside(copied.label_map)
        yield from aside(write_label, folder / CORRECTED_LABEL, label, record.classes, reference=record.geometry)
        if case.result is None:
            raise SSLSegError(
                _("The segmentation of {name} was deleted while it was written.").format(name=case.name),
                remedy=_("What it was lies in {path}.").format(path=folder / CORRECTED_LABEL),
            )


def revert(case):
    """:func:`revert_steps` at once. Returns the new segmentation node."""
    return _finish(revert_steps(case))


def revert_steps(case):
    """Put the method's own pseudo-label back, undoing corrections and the decision.

    A generator; its value is the new segmentation node.

    Raises:
        SSLSegError: The job's folder is gone or was changed: the scene is as before then.
    """
    from SSLSegLib.pseudolabels.review import save_review
    from SSLSegPanel.publish import publish_result

    folder, node, state = Path(case.result_folder), case.result, review_state(case.result)
    _mark(node, "unreviewed")  # so that publishing replaces it
    try:
        node = yield from publish_result(case, folder)
    except BaseException:  # also when the panel is closed in between
        if node.GetScene() is not None:
            _mark(node, state)
        raise
    save_review(folder, "unreviewed")
    return node


def uncertain_slices(uncertainty):
    """Slices of an uncertainty volume from the most to the least uncertain: ``[(k, (r, a, s) of its worst voxel)]``.

    Slices whose uncertainty is below a tenth of the worst are left out: there is nothing to look at.
    """
    array = slicer.util.arrayFromVolume(uncertainty)
    sums = array.sum(axis=(1, 2), dtype=np.float64)
    if not sums.max() > 0:
        return []
    matrix = vtk.vtkMatrix4x4()
    uncertainty.GetIJKToRASMatrix(matrix)
    found = []
    for k in np.argsort(-sums, kind="stable"):
        if sums[k] < 0.1 * sums.max():
            break
        j, i = np.unravel_index(int(array[k].argmax()), array[k].shape)
        found.append((int(k), tuple(matrix.MultiplyPoint((float(i), float(j), float(k), 1.0))[:3])))
    return found


def restore_decision(case):
    """Take the decision that stands in the job's folder over to the node, where it is about this very label."""
    from SSLSegLib.pseudolabels.review import load_review

    folder = Path(case.result_folder)
    review = load_review(folder)
    if review.state != "unreviewed" and review.state != "corrected" and not review.is_stale(folder):
        _mark(case.result, str(review.state))


def _finish(steps):
    from SSLSegPanel.prepare import finish

    return finish(steps)


def _decide(case, state):
    _save(case, state)
    _mark(case.result, state)


def _save(case, state):
    from SSLSegLib.pseudolabels.review import save_review

    if Path(case.result_folder).is_dir():
        save_review(case.result_folder, state)


def _mark(node, state):
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    status = {
        "unreviewed": logic.NotStarted,
        "editing": logic.InProgress,
        "accepted": logic.Completed,
        "corrected": logic.Completed,
        "rejected": logic.Flagged,
    }[state]
    node.SetAttribute(_ATTRIBUTE, None if state == "unreviewed" else state)
    segmentation = node.GetSegmentation()
    for index in range(segmentation.GetNumberOfSegments()):
        logic.SetSegmentStatus(segmentation.GetNthSegment(index), status)
