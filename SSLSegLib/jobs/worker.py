"""The child process of a job: ``python -m SSLSegLib.jobs.worker FOLDER [--parent PID --parent-start TIME]``."""

import _thread
import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path

__all__ = ["main"]

_PATIENCE = 3.0  # seconds that a run has to end by itself
_PARENT_INTERVAL = 0.5  # seconds between two looks at whether the parent lives


def main(arguments: list[str] | None = None) -> int:
    """Run one job; the exit code says how it ended (see ``runner.EXIT_CODES``)."""
    parser = argparse.ArgumentParser(prog="SSLSegLib.jobs.worker")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parent", type=int)
    parser.add_argument("--parent-start", type=float)
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait must not spin: read when torch loads
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    if options.parent is not None:  # before anything that takes long to import: a parent may die early
        watch = threading.Thread(target=_end_with, args=(options.parent, options.parent_start), daemon=True)
        watch.start()
    from SSLSegLib.errors import SSLSegError
    from SSLSegLib.jobs.process import use_real_interpreter
    from SSLSegLib.jobs.runner import EXIT_CODES, run_job

    use_real_interpreter()
    try:
        state = run_job(options.folder)
    except SSLSegError as error:
        print(error, file=sys.stderr)
        return EXIT_CODES["failed"]
    finally:
        _end_children()
    return EXIT_CODES[state.status]


def _end_with(parent: int, parent_start: float) -> None:
    """Wait for the parent's death, then cancel the job; after a few seconds end without being asked again."""
    import psutil

    while True:
        try:
            process = psutil.Process(parent)
            if abs(process.create_time() - parent_start) > 30 or process.status() == psutil.STATUS_ZOMBIE:
                break
        except psutil.NoSuchProcess:
            break
        time.sleep(_PARENT_INTERVAL)
    if sys.platform == "win32":
        _thread.interrupt_main(signal.SIGTERM)
    else:
        os.kill(os.getpid(), signal.SIGTERM)  # to the process, not to this thread: it wakes a main thread that sleeps
    time.sleep(_PATIENCE)
    _end_children()
    os._exit(3)  # EXIT_CODES["cancelled"], which may not be imported yet


def _end_children() -> None:
    import psutil

    from SSLSegLib.jobs.process import kill_tree

    for child in psutil.Process().children(recursive=True):
        kill_tree(child.pid, patience=0.2)


if __name__ == "__main__":
    sys.exit(main())
