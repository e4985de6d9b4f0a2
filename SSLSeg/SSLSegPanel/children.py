"""Python children of the panel: how they are started, and waiting for one without blocking. No Qt."""

import os
import subprocess
from pathlib import Path

__all__ = ["LIBRARY", "child_steps", "environment", "python_command"]

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


def child_steps(arguments, log):
    """Run a Python child to its end. A generator that pauses while it waits; its value is the text that it printed.

    Args:
        arguments: For Python, such as ``["-m", "SSLSegLib", "phantom", folder]``.
        log: File for what the child prints.

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
        )
    try:
        while child.poll() is None:
            yield 0.1
    finally:
        if child.poll() is None:
            kill_tree(child.pid, patience=0)
    text = log.read_text(encoding="utf-8", errors="replace")
    if child.returncode:
        raise SSLSegError(text.strip()[-800:] or f"A process ended with code {child.returncode}.")
    return text
