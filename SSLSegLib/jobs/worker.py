"""The child process of a job: ``python -m SSLSegLib.jobs.worker FOLDER [options]``."""

import argparse
import os
import sys
from pathlib import Path

__all__ = ["main"]

_PATIENCE = 3.0  # seconds that a run has to end by itself when its parent is gone
_CANCELLED = 3  # runner.EXIT_CODES["cancelled"], which may not be imported yet then


def main(arguments: list[str] | None = None) -> int:
    """Run one job; the exit code says how it ended (see ``runner.EXIT_CODES``)."""
    parser = argparse.ArgumentParser(prog="SSLSegLib.jobs.worker")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parent", type=int)
    parser.add_argument("--parent-start", type=float)
    parser.add_argument(
        "--unless-cancelled", action="store_true", help="Do nothing if the job was cancelled meanwhile."
    )
    options = parser.parse_args(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that wait must not spin: read when torch loads
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    from SSLSegLib.processes import end_children, end_with_parent, use_real_interpreter

    if options.parent is not None:
        end_with_parent(options.parent, options.parent_start, exit_code=_CANCELLED, patience=_PATIENCE)
    from SSLSegLib.errors import SSLSegError
    from SSLSegLib.jobs.runner import EXIT_CODES, run_job

    use_real_interpreter()
    try:
        state = run_job(options.folder, unless_cancelled=options.unless_cancelled)
    except SSLSegError as error:
        print(error, file=sys.stderr)
        return EXIT_CODES["failed"]
    finally:
        end_children()
    return EXIT_CODES[state.status]


if __name__ == "__main__":
    sys.exit(main())
