"""Child processes: the interpreter they are started with, their end with their parent, and the end of a whole tree."""

import _thread
import contextlib
import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from SSLSegLib.errors import SSLSegError

__all__ = [
    "CLOCK_STEP",
    "LIBRARY",
    "as_argument",
    "end_children",
    "end_with_parent",
    "kill_tree",
    "library_path",
    "real_interpreter",
    "since_boot",
    "this_process",
    "usable_cores",
    "use_real_interpreter",
]

LIBRARY = Path(__file__).resolve().parent.parent
"""The folder that holds ``SSLSegLib``."""

CLOCK_STEP = 30.0  # seconds by which a process's start time may seem to move when the clock is set
_PARENT_INTERVAL = 0.5  # seconds between two looks at whether the parent lives


def as_argument(path: Path | str) -> str:
    """A path as it is typed after a command: quoted where the shell of this system would take it apart."""
    return subprocess.list2cmdline([str(path)]) if sys.platform == "win32" else shlex.quote(str(path))


def real_interpreter() -> Path:
    """The Python executable that children are started with.

    Under Slicer ``sys.executable`` is a launcher, which multiprocessing cannot spawn from and whose death leaves the
    real interpreter running. ``SSLSEG_PYTHON`` names another one.

    Raises:
        SSLSegError: When only a launcher can be found.
    """
    chosen = os.environ.get("SSLSEG_PYTHON")
    if chosen:
        return Path(chosen)
    for candidate in _interpreters():
        if candidate.is_file() and not _is_launcher(candidate):
            return candidate
    raise SSLSegError(
        f"No Python interpreter was found behind the launcher {sys.executable}.",
        remedy="Set the environment variable SSLSEG_PYTHON to the path of Slicer's python-real.",
    )


def _interpreters() -> Iterator[Path]:
    """Where to look, in order: what says it runs us, what really runs us, and what lies beside either."""
    started = Path(sys.executable or "python")
    running = Path(psutil.Process().exe())
    yield started
    if running.name.lower().startswith("python"):
        yield running
    ending = ".exe" if sys.platform == "win32" else ""
    prefixes = [Path(prefix) for prefix in dict.fromkeys((sys.base_prefix, sys.prefix))]
    beside = [started.parent, running.parent]
    inside = [folder for prefix in prefixes for folder in (prefix / "bin", prefix, prefix.parent / "bin")]
    for name in (f"python-real{ending}", f"python{ending}"):
        yield from (folder / name for folder in (*beside, *inside))


def _is_launcher(executable: Path) -> bool:
    if executable.name.lower().startswith(("pythonslicer", "slicer")):
        return True
    try:
        with open(executable, "rb") as opened:
            return opened.read(2) == b"#!"
    except OSError:
        return True


def use_real_interpreter() -> None:
    """Let multiprocessing spawn from the real interpreter in this process (nnU-Net's workers need it)."""
    interpreter = str(real_interpreter())
    if interpreter != sys.executable:
        multiprocessing.set_executable(interpreter)  # type: ignore[attr-defined]


def library_path(library: Path | None = None) -> str:
    """``PYTHONPATH`` for a child: this library, then what this process has there.

    Args:
        library: Folder that holds ``SSLSegLib``; default the one this code lies in.
    """
    return os.pathsep.join([str(library or LIBRARY), *filter(None, [os.environ.get("PYTHONPATH")])])


def usable_cores() -> int:
    """CPU cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def since_boot(pid: int) -> int | None:
    """When a process began, in clock ticks since the machine was booted; None where that is not known.

    Linux knows nothing else: there the time of day that psutil gives moves when the clock is set.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[19])  # field 22, "starttime", of proc(5); the name before may hold anything
    except (OSError, IndexError, ValueError):
        return None


def this_process() -> tuple[int, float]:
    """Id and start time of this process: what a child needs for :func:`end_with_parent`."""
    return os.getpid(), psutil.Process().create_time()


def end_with_parent(parent: int, parent_start: float, *, exit_code: int, patience: float = 0.0) -> None:
    """See to it that this process ends with all it started when its parent is gone, killed perhaps.

    A thread looks every half second. Start it before anything that takes long to import: a parent may die early.

    Args:
        parent, parent_start: See :func:`this_process`; a process with the parent's id and another start is not it.
        exit_code: Of this process, where it has to be ended.
        patience: Seconds that this process has to end by itself, asked as by ``kill``; 0: it is not asked.
    """

    def watch() -> None:
        # The clock may be set while we run, and then the parent seems to have begun at another time.
        began = since_boot(parent) if _lives(parent, parent_start) else None
        while _lives(parent, parent_start, began):
            time.sleep(_PARENT_INTERVAL)
        if patience > 0:
            _ask_to_end()
            time.sleep(patience)
        end_children()
        os._exit(exit_code)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def _lives(pid: int, start: float, ticks: int | None = None) -> bool:
    """Whether the process lives that began then: by the clock, or by :func:`since_boot` where that is known."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - start) < CLOCK_STEP if ticks is None else since_boot(pid) == ticks
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # somebody else's, so it is there
        return True


def _ask_to_end() -> None:
    if sys.platform == "win32":
        _thread.interrupt_main(signal.SIGTERM)
    else:
        os.kill(os.getpid(), signal.SIGTERM)  # to the process, not to this thread: it wakes a main thread that sleeps


def end_children() -> None:
    """Kill everything that this process has started: all at once, and again what was started meanwhile."""
    for _ in range(3):
        children = _descendants(psutil.Process())
        if not children:
            return
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()
        psutil.wait_procs(children, timeout=2.0)


def kill_tree(pid: int, patience: float = 3.0) -> None:
    """End a process and all its descendants: politely first, after ``patience`` seconds without mercy.

    Only the process itself is asked politely, and not at all where ``patience`` is 0; a worker ends its own children,
    and what is left of them is killed.
    """
    try:
        root = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    family = {process.pid: process for process in [root, *_descendants(root)]}
    if patience > 0:
        with contextlib.suppress(psutil.NoSuchProcess):
            root.terminate()
        deadline = time.monotonic() + patience
        while _is_alive(root) and time.monotonic() < deadline:
            family.update({process.pid: process for process in _descendants(root)})
            time.sleep(0.05)
    for process in family.values():
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(family.values(), timeout=2.0)


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
