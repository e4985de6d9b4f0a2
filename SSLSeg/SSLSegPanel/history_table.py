# ruff: noqa: N802 - the names are those of Slicer and Qt
"""Section 5, lower half: the states that the labels have been in; show one, go back to one, plot the training."""

import qt
import slicer
from slicer.i18n import tr as _

from SSLSegPanel import label_history
from SSLSegPanel.refine_texts import plot_title
from SSLSegPanel.session import show_error
from SSLSegPanel.training_plot import TrainingPlot
from SSLSegPanel.widgets import fit, put, stretch

__all__ = ["HistoryTable"]


class HistoryTable:
    """The table of rounds and its buttons.

    Args:
        section: The :class:`RefineSection` that it belongs to: knows the training, and says things.
    """

    def __init__(self, ui, session, section):
        self.ui, self.session, self.section = ui, session, section
        self.plot = TrainingPlot()
        self._labels = []  # what the table shows, row by row
        stretch(ui.roundsTable, 1)
        ui.loadRoundButton.connect("clicked(bool)", self.onLoadLabels)
        ui.rollBackButton.connect("clicked(bool)", self.onRollBack)
        ui.plotButton.connect("clicked(bool)", self.onPlot)
        ui.roundsTable.connect("itemSelectionChanged()", self.show_buttons)

    def refresh(self):
        """Show the history as it is on disk now, keeping the selection."""
        chosen = self._chosen()
        self._labels = label_history.history(self.session.run) if self.session.usable else []
        table = self.ui.roundsTable
        table.setRowCount(len(self._labels))
        for row, labels in enumerate(self._labels):
            for column, text in enumerate((labels.name, labels.made_from, labels.agreement, labels.time)):
                put(table, row, column, text, align=qt.Qt.AlignCenter if column > 1 else None)
                if labels.why:
                    table.item(row, column).setToolTip(labels.why)
        fit(table)
        table.clearSelection()
        names = [labels.name for labels in self._labels]
        if chosen is not None and chosen.name in names:
            table.selectRow(names.index(chosen.name))
        self.show_buttons()

    def show_buttons(self):
        """Enable what can be done with the selected labels, and say why the rest cannot."""
        labels = self._chosen()
        none = _("Select a row of the table first") if self._labels else _("Nothing has been refined yet")
        self.ui.loadRoundButton.enabled = labels is not None and not labels.missing
        self.ui.loadRoundButton.toolTip = (
            none if labels is None else labels.missing or _("Show the selected labels in place of the unreviewed ones")
        )
        rounds = [each for each in self._labels if each.number]
        later = labels is not None and any(label_history.is_after(each, labels) for each in rounds)
        running = self.section.running
        self.ui.rollBackButton.enabled = later and not running
        self.ui.rollBackButton.toolTip = (
            none
            if labels is None
            else _("Not while a training is running")
            if running
            else _("Undo the rounds after the selected one; their files are kept aside")
            if later
            else _("There is no later round to undo")
        )
        self.ui.plotButton.enabled = self.section.training is not None or bool(rounds)
        self.ui.plotButton.toolTip = (
            _("Show loss and agreement in a plot, which grows while a training is running")
            if self.ui.plotButton.enabled
            else _("There is nothing to plot before a training")
        )

    def _chosen(self):
        rows = [item.row() for item in list(self.ui.roundsTable.selectedItems())]
        return self._labels[rows[0]] if rows and rows[0] < len(self._labels) else None

    def onLoadLabels(self, checked=False):
        labels = self._chosen()
        if labels is None:
            return

        def done(count):
            said = _("Cases that show these labels now: {n} ({name}). Reviewed ones stay.")
            self.section.say(said.format(n=count, name=labels.name))
            self.session.results_changed.emit()

        def failed(error):
            self.session.results_changed.emit()
            show_error(error, _("The labels could not be shown."))

        steps = label_history.load_labels_steps(self.session.run, labels, self.session.cases)
        self.session.stepper.start(steps, done, failed, said=self.section.say)

    def onRollBack(self, checked=False):
        labels = self._chosen()
        if labels is None:
            return
        with slicer.util.tryWithErrorDisplay(_("The rounds could not be undone.")):
            run = self.session.run
            undone = label_history.roll_back(run, labels)
            stale = [case for case in self.session.cases if label_history.shows_undone_round(run, case)]
            self.section.say(_("Rounds undone: {n}. Their files are kept aside.").format(n=undone))
            self.session.run_changed.emit()
            if stale:  # nothing may show what is no longer there
                steps = label_history.load_labels_steps(run, labels, stale)
                self.session.stepper.start(steps, lambda count: self.session.results_changed.emit())

    def onPlot(self, checked=False):
        with slicer.util.tryWithErrorDisplay(_("The plot could not be made.")):
            training = self.section.training
            metrics = training.progress.metrics if training is not None else []
            kind = training.job.manifest.kind if training is not None else "selftraining"
            reports = label_history.finished_rounds(label_history.last_training(self.session.run))
            self.plot.show(metrics, reports, plot_title(kind))
