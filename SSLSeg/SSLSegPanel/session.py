"""What the sections of the panel share: logic, the scene's parameters and cases, the run, and who hears of changes."""

import errno
import importlib.util
import time
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from SSLSegPanel.casenodes import CaseList
from SSLSegPanel.children import aside

__all__ = [
    "LIGHT_PACKAGES",
    "UNIMATCH_PACKAGES",
    "Session",
    "Signal",
    "Stepper",
    "missing_packages",
    "set_setting",
    "setting",
    "show_error",
    "warm_steps",
]

LIGHT_PACKAGES = ("pydantic", "psutil", "filelock", "pooch", "cc3d")
"""What cases, review and export need beyond Slicer: small, no torch."""

COMPUTE_PACKAGES = ("torch", "sam2", "safetensors", "matplotlib")
"""What a run needs as well."""

UNIMATCH_PACKAGES = ("transformers", "accelerate")
"""What refinement by UniMatch v2 needs beside those of a run."""

_STEP_BUDGET = 0.025  # seconds of work between two looks of Slicer at its events


def missing_packages(names):
    """Those of the packages that are not installed; nothing is imported."""
    return [name for name in names if importlib.util.find_spec(name) is None]


_NEEDED_LATER = (
    "SimpleITK",
    "scipy.ndimage",
    "SSLSegLib.jobs.tffs",
    "SSLSegLib.jobs.process",
    "SSLSegLib.weights.catalogue",
    "SSLSegLib.pseudolabels.storage",
    "SSLSegLib.scene.cases",
    "SSLSegLib.scene.surfaces",
    "psutil",
)


def warm_steps():
    """Import what a click will need, one piece at a time, so that no click waits for it.

    In a thread, since a piece takes up to a quarter of a second. SimpleITK's one large library holds Python even so.
    """
    for name in _NEEDED_LATER:
        yield
        yield from aside(importlib.import_module, name)


class Signal:
    """Tells whoever wants to know. Plain Python: Qt signals of Python classes are not in every PythonQt."""

    def __init__(self):
        self._slots = []

    def connect(self, slot):
        self._slots.append(slot)

    def emit(self, *arguments):
        for slot in list(self._slots):
            slot(*arguments)


class Stepper:
    """Runs generators of small steps on the main thread, a few milliseconds at a time, one after the other."""

    def __init__(self):
        self._waiting = []
        self._timer = qt.QTimer()
        self._timer.setInterval(0)
        self._timer.connect("timeout()", self._work)

    @property
    def busy(self):
        return bool(self._waiting)

    def start(self, steps, done=None, failed=None, said=None):
        """Queue a generator.

        Args:
            steps: Yields texts, None, or a number of seconds in which there is nothing to do.
            done: Called with the generator's value.
            failed: Called with the exception; without it the error is shown.
            said: Called with each yielded text.
        """
        self._waiting.append((steps, done, failed, said))
        self._timer.start()

    def stop(self):
        """Give up what is queued; the generators clean up after themselves."""
        waiting, self._waiting = self._waiting, []
        self._timer.stop()
        for each in waiting:
            each[0].close()

    def drop(self, steps):
        """Give up one generator. True where it was still queued; nothing is called for it then."""
        kept = [each for each in self._waiting if each[0] is not steps]
        dropped = len(kept) < len(self._waiting)
        self._waiting = kept
        if dropped:
            steps.close()
        if not kept:
            self._timer.stop()
        return dropped

    def _work(self):
        deadline = time.monotonic() + _STEP_BUDGET
        self._timer.setInterval(0)
        while self._waiting and time.monotonic() < deadline:
            steps, done, failed, said = self._waiting[0]
            try:
                text = next(steps)
                if isinstance(text, float):  # it waits for a child process
                    self._timer.setInterval(round(1000 * text))
                    return
                if text and said:
                    said(text)
            except StopIteration as end:
                self._finish()
                if done:
                    done(end.value)
            except Exception as error:
                self._finish()
                if failed:
                    failed(error)
                else:
                    show_error(error)

    def _finish(self):
        if self._waiting:
            self._waiting.pop(0)
        if not self._waiting:
            self._timer.stop()


class Session:
    """The state behind the panel.

    Attributes:
        logic: The module's logic.
        parameters: The scene's :class:`PanelParameters`, None only while a scene is being closed.
        run: The job that runs or ran last, or None.
        bank_problem: What is wrong with the template bank, as it was last looked at; empty where nothing is.
        card_free: Bytes of the graphics card's memory that were free when it was last tried; None where it was not.
        cases_changed, run_changed, results_changed, parameters_changed, setup_changed: Signals.
    """

    def __init__(self, logic):
        self.logic = logic
        self.parameters = None
        self.run = None
        self.bank_problem = ""
        self.card_free = None
        self.stepper = Stepper()
        self.cases_changed, self.run_changed, self.results_changed = Signal(), Signal(), Signal()
        self.parameters_changed, self.setup_changed = Signal(), Signal()
        self.light_missing = missing_packages(LIGHT_PACKAGES)
        self.compute_missing = missing_packages(COMPUTE_PACKAGES)

    @property
    def cases(self):
        return CaseList()

    @property
    def usable(self):
        """Whether the library's light parts can be imported."""
        return not self.light_missing

    def look_at_packages(self):
        """Look again what is installed."""
        importlib.invalidate_caches()
        self.light_missing = missing_packages(LIGHT_PACKAGES)
        self.compute_missing = missing_packages(COMPUTE_PACKAGES)
        self.setup_changed.emit()

    # Choices of the machine
    @property
    def device(self):
        return setting("Device", "auto")

    @property
    def speed_key(self):
        """Setting that remembers how long a tracked slice takes with the chosen weights, preset and device."""
        return f"SecondsPerFrame/{self.parameters.weights}-{self.parameters.preset.value}-{self.device}"

    @property
    def output(self):
        return setting("JobFolder", "") or str(Path.home() / "SSLSeg")

    @property
    def weights_folder(self):
        return setting("WeightsFolder", "")

    @property
    def bank(self):
        """Folder of the template bank that a person keeps; empty: each run makes its own."""
        return setting("BankFolder", "")


def setting(name, default):
    """A choice of this machine as text, kept in Slicer's settings."""
    return str(slicer.util.settingsValue(f"SSLSeg/{name}", default))


def set_setting(name, value):
    qt.QSettings().setValue(f"SSLSeg/{name}", value)


def show_error(error, doing=""):
    """An error as a sentence with the next step; what only developers read goes to the log."""
    import logging
    import traceback

    if not hasattr(error, "problem"):  # not one of ours: keep the trace
        logging.error("".join(traceback.format_exception(type(error), error, error.__traceback__)))
    text = _in_words(error)
    slicer.util.errorDisplay(f"{doing}\n\n{text}" if doing else text)


def in_sentences(problem, remedy, between=" "):
    """What is wrong and what to do, which elsewhere follows a colon."""
    remedy = remedy or ""
    return between.join(part for part in (problem, remedy[:1].upper() + remedy[1:]) if part)


def _in_words(error):
    """What happened and, where that can be said, what to do."""
    if getattr(error, "remedy", None) is not None:
        before, _mark, step = str(error).partition(" What to do: ")
        return in_sentences(before, step, between="\n\n")
    if isinstance(error, MemoryError):
        return _("The computer has too little free memory. Close other programs, or crop or resample the scans.")
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    place = str(error.filename or "")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        sentence = _("The disk is full: {place}") if place else _("The disk is full.")
        step = _("Make space there, or choose another folder (2. Method, Advanced, for runs).")
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        sentence, step = _("This may not be written or read: {place}"), _("Choose another folder, or ask who owns it.")
    elif error.errno in (errno.EEXIST, errno.ENOTDIR):
        sentence, step = _("Something else is in the way: {place}"), _("Choose another folder, or move it away.")
    else:
        return str(error)
    return f"{sentence.format(place=place)}\n\n{step}"
