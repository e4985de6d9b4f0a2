"""What tests of the module share beside fixtures."""

import itertools
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import slicer

from SSLSegLib.cases.reading import read_label_file
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.cases.writing import write_label
from SSLSegLib.pseudolabels.storage import load_pseudo_label, read_result
from SSLSegLib.selftraining.choice import Choice
from SSLSegLib.selftraining.folders import WorkFolder
from SSLSegLib.selftraining.report import RoundReport, write_report

__all__ = [
    "MODULE",
    "beating",
    "block",
    "draw",
    "longest_step",
    "plot_curves",
    "quiet",
    "results_of",
    "segment_masks",
    "texts",
    "write_first_labels",
    "write_rounds",
]

MODULE = Path(__file__).resolve().parents[2] / "SSLSeg" / "SSLSeg.py"


def texts(table):
    """The texts of a table, row by row."""
    return [[table.item(row, column).text() for column in range(table.columnCount)] for row in range(table.rowCount)]


def results_of(folder):
    """Case id -> label map of the results in a job folder."""
    return {path.name: load_pseudo_label(path).mask for path in sorted((folder / "results").iterdir())}


def segment_masks(node, volume):
    """Segment name -> voxels in the volume's grid, as Slicer itself reads them."""
    segmentation = node.GetSegmentation()
    names = [segmentation.GetNthSegment(index).GetName() for index in range(segmentation.GetNumberOfSegments())]
    return {
        name: slicer.util.arrayFromSegmentBinaryLabelmap(
            node, segmentation.GetSegmentIdBySegmentName(name), volume
        ).copy()
        for name in names
    }


@contextmanager
def beating(clock):
    """Times by this clock at which the GUI thread looked at its events, while the context lasts."""
    import qt

    times, timer = [], qt.QTimer()
    timer.setInterval(5)
    timer.connect("timeout()", lambda: times.append(clock()))
    timer.start()
    try:
        yield times
    finally:
        timer.stop()


def longest_step(times):
    """The longest time between two beats."""
    return max(after - before for before, after in itertools.pairwise(times))


def quiet(host, panel, timeout=60):
    """Wait until queued steps are done and the tables have followed."""
    steppers = panel.session.stepper, panel.resultsSection.steps
    host.wait_until(lambda: not any(each.busy for each in steppers) and not panel._quiet.active, timeout)
    host.process_events()


def plot_curves():
    """Series name -> its points, of the one training chart in the scene."""
    chart = slicer.util.getNode("SSLSeg training")
    found = {}
    for index in range(chart.GetNumberOfPlotSeriesNodes()):
        series = chart.GetNthPlotSeriesNode(index)
        table = series.GetTableNode()
        columns = [slicer.util.arrayFromTableColumn(table, column) for column in ("x", series.GetYColumnName())]
        found[series.GetName()] = list(zip(*(column.tolist() for column in columns), strict=True))
    return found


def write_rounds(job, count, cases, folder="selftraining"):
    """What rounds of self-training leave, without the training: round N has the label N in its first voxel."""
    work = WorkFolder(job / folder)
    for number in range(1, count + 1):
        target = work.round(number)
        _write_predictions(job, target.predictions, cases, number)
        report = RoundReport(
            name=f"round {number}",
            configuration="2d",
            labelled=("c0", "c1"),
            trained=cases,
            left_out={},
            folds={0: cases},
            checkpoints={},
            agreement=0.8 + number / 20,
            changes={},
            seconds=10.0,
        )
        write_report(target.report, report)


def write_first_labels(job, cases, parts, folder="selftraining"):
    """What a choice of first labels leaves: of class 1 and 2 the networks' part, label 2 in the first voxel."""
    work = WorkFolder(job / folder)
    classes = {"class 1": parts[0], "class 2": parts[1]}
    dice = {"given": {"c0": 0.5, "c1": 0.7}, "mean": {"c0": 0.8, "c1": 0.8}, "networks": {"c0": 0.6, "c1": 0.6}}
    choice = Choice(parts=classes, dice=dict.fromkeys(classes, dice))
    work.choice.parent.mkdir(parents=True, exist_ok=True)
    work.choice.write_text(choice.model_dump_json(), encoding="utf-8")
    if not choice.given:
        _write_predictions(job, work.first.predictions, cases, 2)


def _write_predictions(job, folder, cases, first_voxel):
    for case in cases:
        record = read_result(job / "results" / case)
        label = read_label_file(job / "results" / case / "labels.nii.gz", record.classes)
        array = label.array.copy()
        array[0, 0, 0] = first_voxel
        path = folder / f"{case}.nii.gz"
        write_label(path, LabelMap(array, record.geometry), record.classes, reference=record.geometry)


def draw(case, name, mask):
    """Give a case's result another mask, bool (K, J, I), of a class."""
    identifier = case.result.GetSegmentation().GetSegmentIdBySegmentName(name)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask.astype(np.uint8), case.result, identifier, case.volume)


def block(case, low, high):
    """A mask (K, J, I) of a case: a box on two slices."""
    mask = np.zeros(slicer.util.arrayFromVolume(case.volume).shape, np.uint8)
    mask[1:3, low:high, low:high] = 1
    return mask
