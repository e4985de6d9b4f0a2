# ruff: noqa: N802 - the names are those of Slicer and Qt
"""Section 5: refinement of a finished run, as a job of its own that may outlive Slicer."""

from pathlib import Path

import slicer
from slicer.i18n import tr as _

from SSLSegPanel import label_history, refinement
from SSLSegPanel.history_table import HistoryTable
from SSLSegPanel.job_run import JobRun
from SSLSegPanel.refine_texts import first_labels_label, guide_label, method_label, preset_label, purpose
from SSLSegPanel.review import being_corrected
from SSLSegPanel.session import UNIMATCH_PACKAGES, in_sentences, missing_packages, show_error
from SSLSegPanel.widgets import enable, tell, timer

__all__ = ["RefineSection"]

_INTERVAL = 1000  # milliseconds between two looks: training takes hours
_PATIENCE = 8000  # milliseconds a stopped training has to end by itself: it has children of its own


class RefineSection:
    """Start, stop, come back, look at what has come of it."""

    def __init__(self, ui, session):
        self.ui, self.session = ui, session
        self.training = None
        self.attached = None  # called with a job that was attached; the widget sets it
        self._states, self._stopping = 0, False
        self.history = HistoryTable(ui, session, self)
        self._methods = refinement.known_methods() if session.usable else []
        for kind in self._methods:
            ui.refineMethodBox.addItem(method_label(kind))
        for preset in refinement.PRESETS:
            ui.refinePresetBox.addItem(preset_label(preset))
        for choice in refinement.FIRST_LABELS:
            ui.firstLabelsBox.addItem(first_labels_label(choice))
        for guide in refinement.GUIDES:
            ui.guideBox.addItem(guide_label(guide))
        self._timer = timer(_INTERVAL, self._look)
        self._mercy = timer(_PATIENCE, self._kill, once=True)
        ui.refineButton.connect("clicked(bool)", self.onRefine)
        ui.attachButton.connect("clicked(bool)", self.onAttach)
        ui.attachEdit.connect("currentPathChanged(QString)", self._show_attach)
        ui.refineMethodBox.connect("currentIndexChanged(int)", self._show_options)
        ui.refinePresetBox.connect("currentIndexChanged(int)", self._show_preset)
        for signal in (session.run_changed, session.results_changed, session.setup_changed):
            signal.connect(self.refresh)
        ui.refineProgressBar.setVisible(False)
        ui.refineStatusLabel.setVisible(False)
        self._show_preset()
        self._show_options()
        self._show_attach()

    # What is shown

    @property
    def kind(self):
        """The chosen kind of refinement, or None where there is none to choose."""
        index = self.ui.refineMethodBox.currentIndex
        return self._methods[index] if 0 <= index < len(self._methods) else None

    @property
    def running(self):
        return self.training is not None and self.training.running

    def problem(self):
        """Why a refinement cannot start, in one sentence; empty when it can."""
        run = self.session.run
        if self.kind is None:
            return _("Install what is missing in 7. Set-up.")
        if self.kind == "selftraining" and missing_packages(["nnunetv2"]):
            return _("nnU-Net is not installed: see 7. Set-up.")
        if self.session.compute_missing or (self.kind == "unimatch" and missing_packages(UNIMATCH_PACKAGES)):
            return _("Install what is missing in 7. Set-up.")
        if run is None or run.job.manifest.kind not in refinement.REFINABLE:
            return _("Refinement starts from a finished run: segment the unlabelled cases first, or attach to a run.")
        if run.progress.ended != "finished":
            return _("The run is not finished yet: refinement starts when all its cases are segmented.")
        open_ones = [case.name for case in self.session.cases if being_corrected(case, run.job.folder)]
        if open_ones:
            return _(
                "Keep or revert the correction of {names} first (4. Results): it would not be learnt from."
            ).format(names=", ".join(open_ones))
        return ""

    def refresh(self):
        running, problem = self.running, self.problem()
        self.ui.refineLabel.text = (problem if not running else "") or purpose(self.kind)
        self.ui.refineButton.text = (
            _("Stopping …") if self._stopping else _("Stop training") if running else _("Refine the labels")
        )
        self.ui.refineButton.enabled = (running and not self._stopping) or (not running and not problem)
        self.ui.refineButton.toolTip = (
            _("End the training with everything it has started; finished rounds and the last epoch are kept")
            if running
            else problem or _("Trains in a process of its own, which goes on when Slicer is closed")
        )
        for name in ("refineMethodBox", "refinePresetBox", "roundsBox", "guideBox", "stepsBox"):
            getattr(self.ui, name).enabled = not running
        given = refinement.why_given(self.session.run)
        enable(self.ui.firstLabelsBox, _("Not while a training is running") if running else given)
        self.history.refresh()

    def _show_options(self, index=0):
        self_training = self.kind == "selftraining"
        for widget in (self.ui.roundsLabel, self.ui.roundsBox, self.ui.firstLabelsLabel, self.ui.firstLabelsBox):
            widget.setVisible(self_training)
        for widget in (self.ui.guideLabel, self.ui.guideBox, self.ui.stepsLabel, self.ui.stepsBox):
            widget.setVisible(self.kind is not None and not self_training)
        self.refresh()

    def _show_preset(self, index=0):
        """Choose what the preset begins with, as the command line does."""
        if self.session.usable:
            choice = refinement.preset_first_labels(refinement.PRESETS[self.ui.refinePresetBox.currentIndex])
            self.ui.firstLabelsBox.setCurrentIndex(refinement.FIRST_LABELS.index(choice))

    def _show_attach(self, path=""):
        enable(self.ui.attachButton, "" if self.ui.attachEdit.currentPath else _("Name the folder of a job first."))

    def say(self, text):
        tell(self.ui.refineStatusLabel, text)

    # The job

    def onRefine(self, checked=False):
        if self.running:
            self._stopping = True
            self.training.ask_to_end()
            self._mercy.start()
            self.say(_("Waiting for the training to end …"))
            self.refresh()
            return
        run, preset = self.session.run, refinement.PRESETS[self.ui.refinePresetBox.currentIndex]
        with slicer.util.tryWithErrorDisplay(_("Refinement could not be started.")):
            steps = refinement.start_steps(
                run,
                self.kind,
                preset=preset,
                rounds=self.ui.roundsBox.value,
                first_labels=None if refinement.why_given(run) else self._first_labels(),
                guide=refinement.GUIDES[self.ui.guideBox.currentIndex],
                steps=self.ui.stepsBox.value or None,
                device=self.session.device,
            )
            self.ui.refineButton.enabled = False
            self.session.stepper.start(steps, self.watch, self._not_started, said=self.say)

    def _first_labels(self):
        return refinement.FIRST_LABELS[self.ui.firstLabelsBox.currentIndex]

    def _not_started(self, error):
        self.say("")
        self.refresh()
        show_error(error, _("Refinement could not be started."))

    def watch(self, training):
        """Follow a training, whoever started it; None: there is none in this scene."""
        self.training, self._stopping = training, False
        self._states = label_history.count_states(self.session.run)
        if training is not None:
            if self.session.parameters is not None:
                self.session.parameters.trainingFolder = str(training.job.folder)
            self._timer.start()
            self._look()
        else:
            self._timer.stop()
            self.say("")
        self.refresh()

    def _look(self):
        try:
            running = self.training.poll()
        except Exception as error:  # a damaged log, a folder that went away
            self._timer.stop()
            self.say(str(error))
            show_error(error, _("The training can no longer be followed."))
            return
        progress = self.training.progress
        reports = label_history.finished_rounds(label_history.last_training(self.session.run))
        states = label_history.count_states(self.session.run)
        self.history.plot.update(progress.metrics, reports)
        self._show_progress(running, progress)
        if running and states != self._states:
            self._states = states
            self.refresh()
            self.session.run_changed.emit()
        elif not running:
            self._timer.stop()
            self._mercy.stop()
            self._stopping = False
            self.refresh()
            self.session.run_changed.emit()

    def _show_progress(self, running, progress):
        self.ui.refineProgressBar.setVisible(running)
        if running:
            known = progress.fraction is not None
            self.ui.refineProgressBar.setRange(0, 1000 if known else 0)
            if known:
                self.ui.refineProgressBar.setValue(round(1000 * progress.fraction))
            if not self._stopping:
                self.say(progress.text())
        elif progress.ended == "finished":
            self.say(_("The training has ended. Select labels below and press Load labels to see them."))
        elif progress.ended == "cancelled":
            self.say(_("The training was stopped. Press Refine the labels to go on where it was."))
        else:
            self.say(in_sentences(progress.message, progress.remedy) or _("The training failed: see its log."))

    def _kill(self):
        if self.running:
            self.training.kill()

    def onAttach(self, checked=False):
        folder = Path(self.ui.attachEdit.currentPath)
        if not (folder / "manifest.json").is_file() and (folder / "job" / "manifest.json").is_file():
            folder = folder / "job"  # the folder of a run was named, which holds its inputs too
        try:
            self.attach(JobRun.open(folder))
        except Exception as error:
            show_error(error, _("The job could not be opened."))

    def attach(self, job):
        """Come back to a job of any kind: show its results, or follow it and show those of the run it refines."""
        kind = job.job.manifest.kind
        if kind in refinement.RUNS:
            self.attached(job)
        elif kind == "expect":
            self.say(self.session.logic.expectedQuality(job.job))
        else:
            source, known = refinement.source_of(job), self.session.run
            if source is None:  # the refined run is gone: show what has come of it
                self.attached(job)
            elif known is None or known.job.folder != source:
                self.attached(JobRun.open(source))
            self.watch(job)

    def close(self):
        """Stop watching; the training goes on, and can be attached to again."""
        self._timer.stop()
        self._mercy.stop()
