"""Refinement without Qt: what self-training of a finished run has left, and how it is shown, undone and applied."""

import shutil
from pathlib import Path

import numpy as np
import slicer
from slicer.i18n import tr as _

__all__ = ["apply_steps", "can_refine", "export_model", "load_round", "plot", "prepare", "reports", "roll_back"]

KIND = "selftraining"
ROUND = "SSLSeg.Round"
"""Attribute of a segmentation that shows the labels of a round."""


def can_refine():
    """Whether this version can run self-training as a job."""
    from SSLSegLib.jobs.kinds import known_kinds

    return KIND in known_kinds()


def work_folder(run):
    """Where the self-training of a run lies."""
    return run.job.folder / "selftraining"


def reports(run):
    """The reports of the finished rounds of a run, in order; empty where there are none."""
    if run is None or not work_folder(run).is_dir():
        return []
    from SSLSegLib.selftraining.folders import WorkFolder
    from SSLSegLib.selftraining.report import read_report

    work = WorkFolder(work_folder(run))
    return [read_report(work.round(number).report) for number in work.finished_rounds()]


def prepare(run, *, preset, rounds, device="auto"):
    """A self-training job beside the run it refines: new, or the same one to go on with.

    Raises:
        SSLSegError: The folder holds other work, or an option is wrong.
    """
    from SSLSegLib.jobs.folder import Job
    from SSLSegLib.jobs.selftraining import selftraining_manifest

    manifest = selftraining_manifest(run.job, preset=preset, rounds=rounds, device=device)
    return Job.create(run.job.folder.parent / f"training-{preset}-{rounds}", manifest)


def load_round(run, number, cases):
    """Show the labels of a round in place of unreviewed ones. Returns how many cases show it.

    The uncertainty of the pseudo-label stays: a round has none of its own.
    """
    from SSLSegLib.cases.reading import read_label_file
    from SSLSegLib.cases.volume import LabelMap
    from SSLSegLib.scene.hierarchy import place_beside
    from SSLSegLib.scene.marks import PseudoLabelMarks
    from SSLSegLib.scene.segmentations import label_to_segmentation_node
    from SSLSegLib.scene.volumes import node_geometry
    from SSLSegLib.selftraining.model import find_round
    from SSLSegPanel.review import review_state

    target = find_round(work_folder(run), number)
    classes = run.job.manifest.checked_parameters().loaded_cohort().classes
    count = 0
    for case in cases:
        path = target.predictions / f"{case.id}.nii.gz"
        if not path.is_file() or case.volume is None or (case.result and review_state(case.result) != "unreviewed"):
            continue
        label = read_label_file(path, classes, case_id=case.id)
        label = LabelMap(label.array, node_geometry(case.volume)) if _same(label, case) else label
        marks = PseudoLabelMarks(case_id=case.id, method=f"FSL-nnUNet, round {number}")
        name = f"{case.name} round {number}"
        node = label_to_segmentation_node(label, classes, case.volume, name, marks=marks)
        node.SetAttribute(ROUND, str(number))
        node.GetDisplayNode().SetVisibility(False)
        place_beside(node, case.volume)
        if case.result is not None:
            slicer.mrmlScene.RemoveNode(case.result)
        case.set_result(node, case.uncertainty, case.result_folder)
        count += 1
    return count


def _same(label, case):
    from SSLSegLib.scene.volumes import node_geometry

    return label.geometry.matches(node_geometry(case.volume))


def roll_back(run, last):
    """Undo the rounds after ``last``; their files are kept in ``reverted/``."""
    from SSLSegLib.selftraining.rounds import revert

    return revert(work_folder(run), last)


def plot(run, training):
    """Loss over the epochs and agreement over the rounds, as tables, series and a chart of the scene."""
    from SSLSegLib.jobs.events import read_events

    path = training.job.events_path if training is not None else None
    events = read_events(path) if path is not None and path.is_file() else []
    losses = [event["train_loss"] for event in events if event["event"] == "metric" and "train_loss" in event]
    agreements = [report.agreement for report in reports(run) if report.agreement is not None]
    for values, title, x in (
        (losses, _("Training loss"), _("epochs of all folds")),
        (agreements, _("Agreement between rounds"), _("round")),
    ):
        if not values:
            continue
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", f"SSLSeg {title}")
        columns = np.column_stack([np.arange(1, len(values) + 1), values])
        slicer.util.updateTableFromArray(table, columns, [x, title])
        series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", title)
        series.SetAndObserveTableNodeID(table.GetID())
        series.SetXColumnName(x)
        series.SetYColumnName(title)
        series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", title)
        chart.SetTitle(title)
        chart.SetXAxisTitle(x)
        chart.AddAndObservePlotSeriesNodeID(series.GetID())
        slicer.modules.plots.logic().ShowChartInLayout(chart)


def trained_round(run):
    """The last finished round of a run, or None."""
    return f"round {len(done)}" if (done := reports(run)) else None


def export_model(run, folder):
    """Write the last round as an nnU-Net v2 model folder. Returns its path."""
    from SSLSegLib.selftraining.export import export_model as export
    from SSLSegLib.selftraining.model import find_round

    cohort = run.job.manifest.checked_parameters().loaded_cohort()
    return export(find_round(work_folder(run)), Path(folder), cohort)


def apply_steps(run, volume):
    """Segment a volume with the last round, in a child process. A generator; its value is the segmentation node.

    Raises:
        SSLSegError: The child failed, with its own last words.
    """
    from SSLSegLib.cases.reading import read_label_file
    from SSLSegLib.errors import SSLSegError
    from SSLSegLib.scene.hierarchy import place_beside
    from SSLSegLib.scene.marks import PseudoLabelMarks
    from SSLSegLib.scene.segmentations import label_to_segmentation_node
    from SSLSegLib.scene.volumes import node_to_volume
    from SSLSegPanel.children import child_steps
    from SSLSegPanel.prepare import new_run_folder, write_plain

    folder = new_run_folder(run.job.folder.parent / "applied")
    image = folder / "image.nrrd"
    write_plain(image, node_to_volume(volume))
    yield
    arguments = ["-m", "SSLSegLib", "predict", str(run.job.folder), str(image), "--out", str(folder / "out")]
    words = yield from child_steps(arguments, folder / "log.txt")
    found = next((folder / "out").rglob("labels.nii.gz"), None)
    if found is None:
        raise SSLSegError(_("The model gave no result: {words}").format(words=words.strip()[-500:]))
    classes = run.job.manifest.checked_parameters().loaded_cohort().classes
    marks = PseudoLabelMarks(case_id="applied", method=f"FSL-nnUNet, {trained_round(run)}")
    label = read_label_file(found, classes)
    node = label_to_segmentation_node(label, classes, volume, f"{volume.GetName()} model", marks=marks)
    place_beside(node, volume)
    shutil.rmtree(folder, ignore_errors=True)
    return node
