"""Publish: finished results of a job as nodes on the volumes they were made for. Knows MRML and SSLSegLib, no Qt."""

from pathlib import Path

import slicer
from slicer.i18n import tr as _

from SSLSegPanel.dicom_export import name_algorithm

__all__ = ["SHOWN_ABOVE", "finished_results", "publish_result", "withdraw_result"]

SHOWN_ABOVE = 0.15
"""Nats: surer than a probability of 0.03 or 0.97 the scan is left as it is, or a violet haze would cover it."""


def finished_results(job, cases):
    """The cases of a scene that have a complete result in a job, with its folder: ``[(case, folder)]``.

    The checksum of every file is not compared here: it would read all results anew each time.
    """
    from SSLSegLib.pseudolabels.storage import is_complete

    found = []
    for case in cases:
        folder = job.result_folder(case.id)
        if case.volume is not None and is_complete(folder, thorough=False):
            found.append((case, folder))
    return found


def publish_result(case, folder):
    """Show one result beside its volume, in place of an earlier unreviewed one of the same case.

    A generator that pauses while files are read; its value is the new segmentation node.

    Raises:
        CaseError: The result is damaged or lies in another grid than the volume. The scene is as before then.
    """
    from SSLSegLib.pseudolabels.storage import read_result
    from SSLSegLib.scene.cases import add_result_steps, read_result_files
    from SSLSegLib.scene.volumes import node_geometry
    from SSLSegPanel.children import aside

    record = read_result(folder)
    if case.volume is None:
        raise _vanished(case)
    grid = node_geometry(case.volume, transform="ignore")
    files = yield from aside(read_result_files, Path(folder), record.classes, grid)
    if case.volume is None:  # deleted while its result was read
        raise _vanished(case)
    nodes = None
    try:
        for nodes in add_result_steps(case.volume, record.classes, files):
            nodes.pseudo_label.GetDisplayNode().SetVisibility(False)  # shown when the case is
            yield
            if case.volume is None:
                raise _vanished(case)
    except BaseException:  # also when the panel is closed in between: no half result stays
        for node in (nodes.pseudo_label, nodes.uncertainty) if nodes is not None else ():
            if node is not None and node.GetScene() is not None:
                slicer.mrmlScene.RemoveNode(node)
        raise
    with slicer.util.RenderBlocker():
        name_algorithm(nodes.pseudo_label, _algorithm(record))
        nodes.uncertainty.GetDisplayNode().SetThreshold(SHOWN_ABOVE, 1.0)
        withdraw_result(case)
        case.set_result(nodes.pseudo_label, nodes.uncertainty, folder)
    return nodes.pseudo_label


def _vanished(case):
    from SSLSegLib.errors import CaseError

    return CaseError(
        _("Its volume was deleted while the result was read."),
        case_id=case.name,
        remedy=_("Add the volume again and attach to the job's folder."),
    )


def withdraw_result(case):
    """Take the nodes of an earlier result out of the scene; a reviewed segmentation stays, it is the user's now.

    The files stay in the job's folder.
    """
    from SSLSegPanel.review import review_state

    reviewed = case.result is not None and review_state(case.result) != "unreviewed"
    for node in (case.uncertainty, None if reviewed else case.result):
        if node is not None:
            slicer.mrmlScene.RemoveNode(node)
    case.set_result(None, None, "")


def _algorithm(record):
    weights = record.provenance.get("weights") or {}
    return f"{record.provenance.get('method', 'SSLSeg')} {weights.get('name', '')}".strip()
