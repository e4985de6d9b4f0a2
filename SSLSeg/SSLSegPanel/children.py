"""Work beside the GUI thread: Python children, and files in a thread; waiting for either without blocking. No Qt."""

import os
import subprocess
import threading
import time
from pathlib import Path

from slicer.i18n import tr as _

__all__ = ["LIBRARY", "aside", "child_steps", "environment", "python_command"]

_GLANCE = 0.003  # seconds for which the GUI thread lets a thread have Python
_PAUSE = 0.01  # seconds between two glances

_MODULE = Path(__file__).resolve().parent.parent
LIBRARY = _MODULE if (_MODULE / "SSLSegLib").is_dir() else _MODULE.parent
"""The folder that holds ``SSLSegLib``: beside the module where it is installed, else one above."""


def python_command(arguments):
    """A command line for the real interpreter, not for Slicer's launcher."""
    from SSLSegLib.jobs.process import real_interpreter

    return [real_interpreter(), *arguments]


def environment():
    """Variables of a child; Slicer's own stay as they are."""
    paths = [str(LIBRARY), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def aside(function, *arguments, **options):
    """Read, write or hash files in a thread, or import: a disk may take its time. A generator; its value is theirs.

    Nothing else belongs here: a scene may be touched on the main thread only, and computing is for child processes.
    Closing the generator waits for the thread, so that it writes nothing afterwards.
    """
    outcome, done = {}, threading.Event()

    def work():
        try:
            outcome["value"] = function(*arguments, **options)
        except BaseException as error:
            outcome["error"] = error
        finally:
            done.set()

    thread = threading.Thread(target=work, name=f"SSLSeg {getattr(function, '__name__', '')}", daemon=True)
    thread.start()
    try:
        # In Slicer the main thread keeps Python to itself between two callbacks; while it waits here, it does not.
        while not done.wait(_GLANCE):
            yield _PAUSE
    finally:
        thread.join()
    if "error" in outcome:
        raise outcome["error"]
    return outcome["value"]


def child_steps(arguments, log, limit=None):
    """Run a Python child to its end. A generator that pauses while it waits; its value is the text that it printed.

    Args:
        arguments: For Python, such as ``["-m", "SSLSegLib", "phantom", folder]``.
        log: File for what the child prints.
        limit: Seconds after which it is taken to hang, and killed; it may take as long as it likes by default.

    Raises:
        SSLSegError: The child failed; its last words are told. Closing the generator kills the child and its own.
    """
    from SSLSegLib.errors import SSLSegError
    from SSLSegLib.jobs.process import kill_tree

    log = Path(log)
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "wb") as output:
        child = subprocess.Popen(
            python_command(arguments),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(),
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),  # no black window on Windows
        )
    began = time.monotonic()
    try:
        while child.poll() is None:
            if limit is not None and time.monotonic() - began > limit:
                raise SSLSegError(_("A process was not done after {n} s.").format(n=f"{limit:g}"))
            yield 0.1
    finally:
        if child.poll() is None:
            kill_tree(child.pid, patience=0)
            child.poll()  # else Python warns that it may be running still
    text = log.read_text(encoding="utf-8", errors="replace")
    if child.returncode:
        last_words = text.strip().split("\n\n")[-1][-800:]  # before them, what it has said of its progress
        raise SSLSegError(last_words or _("A process ended with code {code}.").format(code=child.returncode))
    return text
