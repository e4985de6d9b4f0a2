# ruff: noqa: N802 - the names are those of Slicer and Qt
"""Section 3: the one button, what is missing for it, how far the run is."""

import qt
from slicer.i18n import tr as _

from SSLSegPanel.job_run import JobRun
from SSLSegPanel.preflight import estimate_text, missing_for_run
from SSLSegPanel.prepare import RunChoices, new_run_folder, prepare_steps
from SSLSegPanel.progress import duration
from SSLSegPanel.publish import publish_result
from SSLSegPanel.refinement import WITH_RESULTS
from SSLSegPanel.review import restore_decision
from SSLSegPanel.session import in_sentences, set_setting, setting, show_error
from SSLSegPanel.widgets import enable, tell

__all__ = ["RunSection"]

_INTERVAL = 150  # milliseconds between two looks at the job
_RESUMED = ("tffs", "vessa")  # kinds of runs that are begun here
_PATIENCE = 3000  # milliseconds a cancelled job has to end by itself


class RunSection:
    """Apply and Cancel, progress and log. States: idle, preparing, running, cancelling."""

    def __init__(self, ui, session):
        self.ui, self.session = ui, session
        self.state = "idle"
        self._published, self._publishing = set(), 0
        self._preparing = None  # steps that end in a started run
        self._speed = ""  # under which setting the speed of this run is remembered
        self._timer = qt.QTimer()
        self._timer.setInterval(_INTERVAL)
        self._timer.connect("timeout()", self._look)
        self._mercy = qt.QTimer()
        self._mercy.setSingleShot(True)
        self._mercy.setInterval(_PATIENCE)
        self._mercy.connect("timeout()", self._kill)
        ui.applyButton.connect("clicked(bool)", self.onApply)
        ui.expectButton.connect("clicked(bool)", self.onExpect)
        ui.resumeButton.connect("clicked(bool)", self.onResume)
        ui.detailsButton.connect("toggled(bool)", self.onDetails)
        for signal in (
            session.cases_changed,
            session.results_changed,
            session.parameters_changed,
            session.setup_changed,
            session.run_changed,
        ):
            signal.connect(self.refresh)
        ui.progressBar.setVisible(False)
        tell(ui.statusLabel, "")

    # What is missing, what it will take

    def missing(self):
        """What keeps a run from starting, one sentence each."""
        return missing_for_run(self.session)

    def refresh(self):
        """Enable the button, or say in its tooltip what is missing."""
        button = self.ui.applyButton
        if self.session.parameters is None:
            button.enabled = False
            return
        if self.state == "idle":
            missing = self.missing()
            button.text = _("Segment the unlabelled cases")
            button.enabled = not missing
            button.toolTip = (
                _("Before this can start:") + "\n• " + "\n• ".join(missing)
                if missing
                else _("Segment every unlabelled case from the labelled ones, in a process of its own")
            )
            self.ui.estimateLabel.text = missing[0] if missing else self._estimate()
        else:
            button.text = _("Cancelling …") if self.state == "cancelling" else _("Cancel")
            button.enabled = self.state != "cancelling"
            button.toolTip = _("End the run with everything it has started; finished cases are kept")
        self.ui.resumeButton.setVisible(self.state == "idle" and self._can_go_on())
        labelled = len(self.session.cases.with_role("labelled"))
        reasons = (
            (self.session.parameters.method != "tffs", _("Only for the method TFFS-MedSAM2.")),
            (labelled < 2, _("Needs two labelled cases: with one, nothing is left to predict it from.")),
            (self.state != "idle", _("Not while a run is going on.")),
            (not button.enabled, _("Something is missing: see the button above.")),
        )
        enable(self.ui.expectButton, next((reason for holds, reason in reasons if holds), ""))

    def _estimate(self):
        speed = float(setting(self.session.speed_key, 0) or 0)
        return estimate_text(self.session, self._choices(), speed)

    def _choices(self):
        choices = RunChoices.from_parameters(
            self.session.parameters, device=self.session.device, bank=self.session.bank
        )
        if self.session.weights_folder:
            choices.weights = self.session.logic.weightsPath(choices.weights, self.session.weights_folder)
        return choices

    # The run

    def onApply(self, checked=False):
        if self.state == "idle":
            self._prepare(expect=False)
        elif self.state != "cancelling":
            self.cancel()

    def onExpect(self, checked=False):
        if self.state == "idle":
            self._prepare(expect=True)

    def _can_go_on(self):
        """Whether the run at hand has ended before its end."""
        run = self.session.run
        if run is None or self.session.compute_missing or run.job.manifest.kind not in _RESUMED:
            return False
        return run.progress.ended in ("cancelled", "failed")

    def onResume(self, checked=False):
        if self.state != "idle" or not self._can_go_on():
            return
        self._become("preparing", _("Going on with the run …"))
        self._speed = ""  # some of its cases are done: its times are not those of a whole run
        self._preparing = _resumed(self.session.run)
        self.session.stepper.start(self._preparing, self.watch, self._not_resumed)

    def _not_resumed(self, error):
        self._become("idle", "")
        show_error(error, _("The run could not be gone on with."))

    def _prepare(self, expect):
        try:
            folder = new_run_folder(self.session.output)
            cases = [case for case in self.session.cases if case.role in ("labelled", "unlabelled")]
            kind = "expect" if expect else None
            steps = prepare_steps(cases, self._choices(), folder, kind=kind)
            self._speed = self.session.speed_key  # the scene may be another one when the run ends
        except Exception as error:
            show_error(error, _("The run could not be prepared."))
            return
        self._become("preparing", _("Writing the scans for the run …"))
        self._preparing = _started(steps)
        self.session.stepper.start(self._preparing, self.watch, self._not_prepared, said=self._say)

    def _not_prepared(self, error):
        self._become("idle", "")
        show_error(error, _("The run could not be prepared."))

    def watch(self, run):
        """Follow a job, whoever started it; its results appear case by case."""
        self.session.run = run
        if self.session.parameters is not None:
            self.session.parameters.jobFolder = str(run.job.folder)
        self._published = set()
        self._become("running", run.progress.text())
        self._timer.start()
        self.session.run_changed.emit()

    def cancel(self):
        """Cancel: ask the job to end, and end it with all it has started if it takes too long."""
        if self.state == "preparing":
            self.session.stepper.drop(self._preparing)
            self._become("idle", _("Cancelled before anything was computed."))
        elif self.state == "running":
            self._become("cancelling", _("Waiting for the run to end …"))
            self.session.run.ask_to_end()
            self._mercy.start()

    def _kill(self):
        if self.session.run is not None and self.session.run.running:
            self.session.run.kill()

    def _look(self):
        run = self.session.run
        try:
            running = run.poll()
        except Exception as error:  # a damaged log, a folder that went away
            self._timer.stop()
            self._become("idle", str(error))
            show_error(error, _("The run can no longer be followed."))
            return
        progress = run.progress
        self._publish_ready(run)
        if running:
            if self.state == "running":
                self._say(progress.text())
            fraction = progress.fraction
            self.ui.progressBar.setRange(0, 0 if fraction is None else 1000)
            if fraction is not None:
                self.ui.progressBar.setValue(round(1000 * fraction))
            if self.ui.detailsButton.checked:
                self._show_log()
        elif not self._publishing:
            self._timer.stop()
            self._ended(run)

    def _publish_ready(self, run):
        if run.job.manifest.kind not in WITH_RESULTS:
            return
        for identifier in run.progress.ready:
            if identifier in self._published:
                continue
            self._published.add(identifier)
            case = self.session.cases.find(identifier)
            if case is not None and case.volume is not None:
                self._publish(case, run.job.result_folder(identifier))

    def _publish(self, case, folder):
        self._publishing += 1
        if case.result is not None and case.result_folder == str(folder):
            self._publishing -= 1  # this very result is shown already
            return

        def done(node):
            self._publishing -= 1
            restore_decision(case)
            self.session.results_changed.emit()

        def failed(error):
            self._publishing -= 1
            if case.node.GetScene() is not None:  # closed with its scene, which nobody needs to be told
                show_error(error, _("A result could not be shown."))

        self.session.stepper.start(publish_result(case, folder), done, failed)

    def _ended(self, run):
        progress = run.progress
        self._mercy.stop()
        if progress.ended == "finished":
            took = _("Finished in {time}.").format(time=duration(progress.elapsed))
            text = _("The run is finished.") if run.attached else took
            if progress.seconds_per_step and not run.attached and run.job.manifest.kind == "tffs" and self._speed:
                set_setting(self._speed, progress.seconds_per_step)
            if run.job.manifest.kind == "expect":
                text = self.session.logic.expectedQuality(run.job)
            elif not any(self.session.cases.find(identifier) for identifier in progress.ready):
                text += " " + _("The scene has none of its cases: attach to {folder} to load them.").format(
                    folder=run.job.folder
                )
        elif progress.ended == "cancelled":
            text = _("Cancelled. Finished cases are kept in {folder}.").format(folder=run.job.folder)
        else:
            text = in_sentences(progress.message, progress.remedy) or _("The run failed: see Details.")
        if self._can_go_on():
            text += " " + _("Press Go on to compute the others.")
        if progress.device and progress.ended == "finished":
            text += " " + progress.device
        self._become("idle", text)
        self._show_log()
        self.session.results_changed.emit()
        self.session.run_changed.emit()

    # What is shown

    def _become(self, state, text):
        self.state = state
        self.ui.progressBar.setVisible(state != "idle")
        self.ui.progressBar.setRange(0, 0)
        self._say(text)
        self.refresh()

    def _say(self, text):
        tell(self.ui.statusLabel, text)

    def onDetails(self, checked=False):
        self.ui.logText.setVisible(checked)
        self._show_log()

    def _show_log(self):
        run = self.session.run
        if run is not None and self.ui.detailsButton.checked:
            self.ui.logText.setPlainText(f"{run.job.folder}\n{run.progress.log}")
            self.ui.logText.moveCursor(qt.QTextCursor.End)

    def onSceneClose(self):
        """The scene goes: what is being written of it cannot be finished; a run that has started goes on."""
        if self.state == "preparing":
            self.cancel()

    def close(self):
        """Leave: a run that was started here ends with Slicer, and can be resumed from its folder."""
        self._timer.stop()
        self._mercy.stop()
        self.session.stepper.stop()
        if self.session.run is not None and self.state in ("running", "cancelling"):
            self.session.run.kill()


def _started(steps):
    """Prepare a job and start it. A generator; its value is the :class:`JobRun`."""
    run = JobRun((yield from steps))
    yield from run.start_steps()
    return run


def _resumed(run):
    """Start a run again that has ended before its end. A generator; its value is the run."""
    yield from run.start_steps()
    return run
