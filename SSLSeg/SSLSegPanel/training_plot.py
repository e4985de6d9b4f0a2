"""Loss and agreement of a refinement as one chart of the scene, which grows while the training runs. No Qt."""

from collections import defaultdict

import numpy as np
import slicer
from slicer.i18n import tr as _

__all__ = ["TrainingPlot", "curves"]


def curves(metrics, reports=()):
    """What there is to draw: ``{name: [(x, y), ...]}``.

    Args:
        metrics: Metric events of a job. Of self-training, one an epoch and fold, from which the mean over the folds is
            drawn at (round - 1) * epochs + epoch, so that what comes before round 1 lies left of 0; of UniMatch, one
            every few steps, drawn at the step.
        reports: Reports of finished rounds: where no event tells their agreement, it is drawn at the round's number.
    """
    found = defaultdict(lambda: defaultdict(list))
    last = 0
    for event in metrics:
        if "epoch" in event:
            at = (_round(event) - 1) * event["epochs"] + event["epoch"]
            found[_("Training loss")][at].append(event.get("train_loss"))
            found[_("Validation loss")][at].append(event.get("val_loss"))
        elif "step" in event:
            at = event["step"]
            found[_("Training loss")][at].append(event.get("loss"))
            found[_("Confident part of the pixels")][at].append(event.get("confident"))
            found[_("Agreement with the guide")][at].append(event.get("guide_agreement"))
        elif event.get("agreement") is not None:
            found[_("Agreement with the labels before")][max(last, _round(event))].append(event["agreement"])
            continue
        else:
            continue
        last = at
    agreement = _("Agreement with the labels before")
    if agreement not in found:
        for number, report in enumerate(reports, start=1):
            if report.agreement is not None:
                found[agreement][number].append(report.agreement)
    drawn = {}
    for name, points in found.items():
        kept = {at: [value for value in values if value is not None] for at, values in points.items()}
        drawn[name] = [(at, float(np.mean(values))) for at, values in sorted(kept.items()) if values]
    return {name: points for name, points in drawn.items() if points}


def _round(event):
    """The number of its round; 0 of the cross-validation that comes before the first."""
    name = str(event.get("round", "round 1"))
    number = name.rsplit(" ", 1)[-1]
    return int(number) if number.isdigit() else int(name != "cross-validation")


class TrainingPlot:
    """A chart with a table and a series a curve. Made in the scene on the first :meth:`show`, then kept up to date."""

    def __init__(self):
        self._chart = None  # node id: nodes go with the scene

    @property
    def shown(self):
        """Whether the chart is in the scene."""
        return self._chart is not None and slicer.mrmlScene.GetNodeByID(self._chart) is not None

    def show(self, metrics, reports=(), title=""):
        """Make the chart, or take it up again, and show it in the layout. Returns its node."""
        if not self.shown:
            chart = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotChartNode", _("SSLSeg training"))
            chart.SetTitle(title)
            chart.SetYAxisTitle(_("loss, agreement"))
            self._chart = chart.GetID()
        chart = slicer.mrmlScene.GetNodeByID(self._chart)
        self.update(metrics, reports)
        slicer.modules.plots.logic().ShowChartInLayout(chart)
        return chart

    def update(self, metrics, reports=()):
        """Draw what has come since; nothing where the chart was never asked for or was deleted."""
        if not self.shown:
            return
        chart = slicer.mrmlScene.GetNodeByID(self._chart)
        there = {series.GetName(): series for series in _series_of(chart)}
        steps = any("step" in event for event in metrics)
        epochs = any("epoch" in event for event in metrics)
        axis = _("steps") if steps else _("epochs of all rounds") if epochs else _("rounds")
        chart.SetXAxisTitle(axis)
        for number, (name, points) in enumerate(curves(metrics, reports).items()):
            series = there.get(name) or _new_series(chart, name, number)
            table = series.GetTableNode()
            if table is not None and table.GetNumberOfRows() != len(points):
                slicer.util.updateTableFromArray(table, np.array(points, dtype=float), ["x", name])


_COLORS = ((0.12, 0.47, 0.71), (1.0, 0.5, 0.05), (0.17, 0.63, 0.17))


def _series_of(chart):
    count = chart.GetNumberOfPlotSeriesNodes()
    return [each for each in (chart.GetNthPlotSeriesNode(index) for index in range(count)) if each is not None]


def _new_series(chart, name, number):
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", f"SSLSeg {name}")
    slicer.util.updateTableFromArray(table, np.zeros((0, 2)), ["x", name])
    series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", name)
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName("x")
    series.SetYColumnName(name)
    series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
    series.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleCircle)
    series.SetColor(*_COLORS[number % len(_COLORS)])
    chart.AddAndObservePlotSeriesNodeID(series.GetID())
    return series
