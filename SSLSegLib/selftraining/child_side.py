"""The child's side of a child process: read the specification, report events, and never outlive the parent."""

import logging
import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from SSLSegLib.errors import SSLSegError
from SSLSegLib.messages import cut_torn_line, message
from SSLSegLib.processes import end_with_parent
from SSLSegLib.progress import Progress

__all__ = ["EXIT_PARENT_IS_GONE", "event_file", "run_child"]

EXIT_PARENT_IS_GONE = 3

Spec = TypeVar("Spec", bound=BaseModel)


def run_child(kind: type[Spec], work: Callable[[Spec, Progress], None]) -> None:
    """Do the work of ``python -m MODULE SPEC.json EVENTS.jsonl PARENT START`` and say how it ended as the last event.

    When the parent is gone (killed, perhaps), this process ends with all its workers, so that a resumed run never meets
    a leftover of the one before.
    """
    spec_path, events_path, parent, parent_start = sys.argv[1:5]
    end_with_parent(int(parent), float(parent_start), exit_code=EXIT_PARENT_IS_GONE)
    tell = event_file(Path(events_path))
    try:
        spec = kind.model_validate_json(Path(spec_path).read_bytes())
        # Under an application launcher sys.executable is no Python, and spawned workers would hang on it.
        multiprocessing.set_executable(str(spec.interpreter))  # type: ignore[attr-defined]
        work(spec, tell)
    except SSLSegError as error:
        tell("failed", message=error.problem, remedy=error.remedy, case=error.case_id)
        sys.exit(1)
    except Exception as error:
        logging.getLogger(__name__).exception("The work failed")
        tell("failed", message=f"{type(error).__name__}: {error}", remedy=None, case=None)
        sys.exit(1)
    tell("ended")


def event_file(path: Path) -> Progress:
    """A listener that appends one message a line (:mod:`SSLSegLib.messages`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cut_torn_line(path)

    def tell(event: str, **fields: Any) -> None:
        line = message(event, fields)
        with open(path, "a", encoding="ascii") as log:
            log.write(line)

    return tell
