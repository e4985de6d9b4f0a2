"""A job's events as what a panel shows: stage, how far, time left, log. Plain Python."""

import time
from collections import deque
from datetime import UTC, datetime

from slicer.i18n import tr as _

__all__ = ["RunProgress", "duration", "stage_label"]

_LOG_LINES = 400
_SURE_AFTER = 3.0  # seconds of work before a time left is worth saying


class RunProgress:
    """Fed with events, it knows what to show.

    Attributes:
        stage: What is being done.
        fraction: 0 to 1 of this stage, or None where nobody knows.
        device: What is computed on and why, once known.
        metrics: Metric events of a training, in order.
        ready: Ids of cases whose results are complete, in the order of completion.
        ended: ``finished``, ``failed`` or ``cancelled``, or None while it runs.
        message, remedy: Why it failed and what to do.
    """

    def __init__(self, clock=time.monotonic):
        self._clock = clock
        self.stage, self.case, self.fraction, self.device = _("Starting"), "", None, ""
        self.ready, self.warnings, self.metrics = [], [], []
        self.ended, self.message, self.remedy = None, "", ""
        self._whole = None  # until when the run will take by its own estimate
        self.seconds_per_step = None  # of the largest stage, for the estimate of later runs
        self.started = clock()
        self._stage_started, self._first_done, self._largest = clock(), None, 20
        self._log = deque(maxlen=_LOG_LINES)

    def feed(self, event):
        """Take in one event of the log."""
        kind = event["event"]
        handler = getattr(self, f"_on_{kind}", None)
        if handler is not None:
            handler(event)
        if kind not in ("progress", "metric"):
            said = {key: value for key, value in event.items() if key not in ("schema_version", "time", "event")}
            details = ", ".join(f"{key}: {value}" for key, value in said.items())
            self._log.append(f"{event.get('time', '')[11:19]}  {kind}  {details}")

    @property
    def log(self):
        """The last lines of what happened."""
        return "\n".join(self._log)

    @property
    def elapsed(self):
        return self._clock() - self.started

    @property
    def seconds_left(self):
        """Of this stage, from its speed so far; None before that can be said."""
        worked = self._clock() - self._stage_started
        if self.fraction is None or self._first_done is None or worked < _SURE_AFTER:
            return None
        gained = self.fraction - self._first_done
        return None if gained <= 0 else worked * (1 - self.fraction) / gained

    @property
    def whole_left(self):
        """Seconds left of the whole run: by its own estimate, or of this stage where that is more; None if unknown."""
        stage = self.seconds_left
        whole = None if self._whole is None else max(self._whole - self._clock(), 0)
        return max(stage or 0, whole or 0) or None

    def text(self):
        """One line for the panel."""
        parts = [stage_label(self.stage)]
        if self.case:
            parts.append(self.case)
        left = self.whole_left
        if left is not None:
            parts.append(_("about {time} left").format(time=duration(left)))
        return " · ".join(parts)

    def _on_stage(self, event):
        self.stage, self.case, self.fraction = event["stage"], "", None
        self._stage_started, self._first_done = self._clock(), None

    def _on_progress(self, event):
        if event["stage"] != self.stage:
            self._on_stage(event)
        self.case = event.get("case") or ""
        if event.get("total"):
            self.fraction = event["done"] / event["total"]
            if self._first_done is None:
                self._first_done = self.fraction
            if event["done"] == event["total"] > self._largest:
                self._largest = event["total"]
                self.seconds_per_step = (self._clock() - self._stage_started) / event["total"]

    def _on_estimate(self, event):
        self._whole = self._clock() + event["seconds"] - _age(event)

    def _on_result(self, event):
        if event["case"] not in self.ready:
            self.ready.append(event["case"])

    def _on_device(self, event):
        self.device = event["outcome"]

    def _on_metric(self, event):
        self.metrics.append(event)

    def _on_warning(self, event):
        self.warnings.append(event["message"])

    def _ended(self, event):
        self.ended = event["event"]
        self.message, self.remedy = event.get("message", ""), event.get("remedy", "")
        if event.get("case"):
            self.message = _("Case {case}: {message}").format(case=event["case"], message=self.message)

    _on_finished = _on_failed = _on_cancelled = _ended


def _age(event):
    """How many seconds ago it was written: of a run that is attached to, some are old."""
    if "time" not in event:
        return 0.0
    return (datetime.now(UTC) - datetime.fromisoformat(event["time"])).total_seconds()


def stage_label(stage):
    """A stage of a job in the user's words; those that are words for people already stay as they are."""
    name, _space, number = stage.rpartition("round ")
    if name == "training ":
        return _("Round {n}: training (epochs of all folds)").format(n=number)
    if name == "labels of ":
        return _("Round {n}: collecting the labels").format(n=number)
    return {
        "dataset": _("Collecting the scans"),
        "planning": _("Planning the network"),
        "preprocessing": _("Preparing the scans"),
        "predicting": _("Segmenting"),
        "training baseline": _("Training on labelled cases only (epochs)"),
        "labels of cross-validation": _("Collecting the labelled cases"),
        "training cross-validation": _("Networks of the labelled cases (epochs)"),
        "labelled cases left out in turn": _("Leaving labelled cases out in turn"),
        "comparing first labels": _("Comparing what to begin with"),
        "first labels": _("First labels"),
    }.get(stage, stage)


def duration(seconds):
    """A time span as people say it."""
    if seconds < 90:
        return _("{n} s").format(n=max(1, round(seconds)))
    if seconds < 5400:
        return _("{n} min").format(n=round(seconds / 60))
    return _("{n} h").format(n=f"{seconds / 3600:.1f}")
