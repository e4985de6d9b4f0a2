# ruff: noqa: N802 - the names are those of Slicer and Qt
"""Section 5: self-training from a finished run, as a job of its own that may outlive Slicer."""

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from SSLSegPanel.cases_section import put, stretch
from SSLSegPanel.job_run import JobRun
from SSLSegPanel.session import missing_packages, show_error

__all__ = ["RefineSection"]

_INTERVAL = 1000  # milliseconds between two looks: training takes hours


class RefineSection:
    """Start, stop, come back, look at rounds."""

    def __init__(self, ui, session):
        self.ui, self.session = ui, session
        self.training = None
        stretch(ui.roundsTable, 1)
        self._timer = qt.QTimer()
        self._timer.setInterval(_INTERVAL)
        self._timer.connect("timeout()", self._look)
        ui.refineButton.connect("clicked(bool)", self.onRefine)
        ui.attachButton.connect("clicked(bool)", self.onAttach)
        ui.loadRoundButton.connect("clicked(bool)", self.onLoadRound)
        ui.rollBackButton.connect("clicked(bool)", self.onRollBack)
        ui.plotButton.connect("clicked(bool)", self.onPlot)
        ui.roundsTable.connect("itemSelectionChanged()", self._show_buttons)
        session.run_changed.connect(self.refresh)
        session.results_changed.connect(self.refresh)
        session.setup_changed.connect(self.refresh)  # also tells when the scene has changed
        self.attached = None  # called with a job that was attached; the widget sets it

    def problem(self):
        """Why training cannot start, in one sentence; empty when it can."""
        run = self.session.run
        if not self.session.logic.canRefine():
            return _("This version has no self-training job: use “python -m SSLSegLib self-train” on the job folder.")
        if missing_packages(["nnunetv2"]):
            return _("nnU-Net is not installed: see 7. Set-up.")
        if run is None or run.job.manifest.kind != "tffs" or run.progress.ended != "finished":
            return _("Refinement starts from a finished run: segment the unlabelled cases first, or attach to a run.")
        return ""

    def refresh(self):
        running = self.training is not None and self.training.running
        problem = self.problem()
        self.ui.refineLabel.text = problem or _(
            "Trains nnU-Net on labelled and accepted cases and labels the rest anew; rejected cases are left out."
        )
        self.ui.refineButton.text = _("Stop training") if running else _("Refine by self-training")
        self.ui.refineButton.enabled = running or not problem
        self.ui.refineButton.toolTip = problem or _("Runs in a process of its own, also while Slicer is closed")
        reports = self.session.logic.rounds(self.session.run)
        self.ui.roundsTable.setRowCount(len(reports))
        for row, report in enumerate(reports):
            put(self.ui.roundsTable, row, 0, report.name)
            put(
                self.ui.roundsTable,
                row,
                1,
                _("{n} labelled, {m} pseudo-labelled").format(n=len(report.labelled), m=len(report.trained)),
            )
            put(self.ui.roundsTable, row, 2, f"{report.agreement:.3f}")
            put(self.ui.roundsTable, row, 3, f"{report.seconds:.0f}")
        self._show_buttons()

    def _show_buttons(self):
        running = self.training is not None and self.training.running
        chosen = bool(list(self.ui.roundsTable.selectedItems()))
        self.ui.loadRoundButton.enabled = chosen
        self.ui.rollBackButton.enabled = chosen and not running
        self.ui.plotButton.enabled = self.ui.roundsTable.rowCount > 0

    def _round(self):
        rows = [item.row() for item in list(self.ui.roundsTable.selectedItems())]
        return rows[0] + 1 if rows else None

    def onRefine(self, checked=False):
        if self.training is not None and self.training.running:
            self.training.ask_to_end()
            self.ui.refineStatusLabel.text = _("Waiting for the training to end …")
            return
        with slicer.util.tryWithErrorDisplay(_("Refinement could not be started.")):
            job = self.session.logic.prepareRefinement(
                self.session.run, preset=self.ui.refinePresetBox.currentText, rounds=self.ui.roundsBox.value
            )
            training = JobRun(job)
            training.start(detached=True)
            self.watch(training)

    def watch(self, training):
        """Follow a training, whoever started it."""
        self.training = training
        self._timer.start()
        self.refresh()

    def _look(self):
        try:
            running = self.training.poll()
        except Exception as error:
            self._timer.stop()
            show_error(error, _("The training can no longer be followed."))
            return
        progress = self.training.progress
        self.ui.refineStatusLabel.text = (
            progress.text() if running else f"{progress.message} {progress.remedy}".strip() or _("Training ended.")
        )
        if not running:
            self._timer.stop()
            self.refresh()
            self.session.run_changed.emit()

    def onAttach(self, checked=False):
        path = self.ui.attachEdit.currentPath
        with slicer.util.tryWithErrorDisplay(_("The job could not be opened.")):
            run = JobRun.open(Path(path))
            if run.job.manifest.kind == "tffs":
                self.attached(run)
            elif run.job.manifest.kind == "expect":
                self.ui.refineStatusLabel.text = self.session.logic.expectedQuality(run.job)
            else:
                self.watch(run)

    def onLoadRound(self, checked=False):
        with slicer.util.tryWithErrorDisplay(_("The labels of the round could not be shown."), waitCursor=True):
            count = self.session.logic.loadRound(self.session.run, self._round())
            self.ui.refineStatusLabel.text = _("{n} cases show the labels of round {m}.").format(
                n=count, m=self._round()
            )
            self.session.results_changed.emit()

    def onRollBack(self, checked=False):
        with slicer.util.tryWithErrorDisplay(_("The rounds could not be undone.")):
            self.session.logic.rollBack(self.session.run, self._round())
            self.refresh()

    def onPlot(self, checked=False):
        with slicer.util.tryWithErrorDisplay(_("The plot could not be made.")):
            self.session.logic.plotRounds(self.session.run, self.training)

    def close(self):
        """Stop watching; the training goes on, and can be attached to again."""
        self._timer.stop()
