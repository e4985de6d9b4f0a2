"""The protocol of workers: one JSON object a line, versioned; what is not known is refused.

A line holds ``schema_version``, ``time``, ``event`` (one of :data:`EVENTS`) and the fields of the event.
"""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from SSLSegLib.errors import SSLSegError

__all__ = ["EVENTS", "LONGEST_LINE", "SCHEMA_VERSION", "MessageError", "cut_torn_line", "message", "read_message"]

SCHEMA_VERSION = 1
LONGEST_LINE = 2**20
"""Bytes; an event takes a few hundred."""

EVENTS = {
    "started": "a run begins (kind, versions, resumed)",
    "stage": "another part of the work begins (stage, total)",
    "progress": "so much of a stage is done (stage, done, total, case)",
    "cases": "so many cases are finished (done, total)",
    "device": "where it is computed (device, outcome)",
    "estimate": "what the run will take (seconds, memory, disk, ...)",
    "result": "the result of a case is there (case; of a cluster also seconds, machine)",
    "refined": "a round has labelled a case anew (case, round, dice)",
    "predicted": "a fold has predicted a case (case, round, fold)",
    "metric": "any numbers",
    "warning": "something to know (message, case)",
    "ended": "a child of a run has done its work",
    "finished": "the run has ended well",
    "failed": "it has not (message, remedy, case)",
    "cancelled": "somebody has stopped it",
}
"""Event -> what it says (its fields)."""


class MessageError(SSLSegError):
    """A line is no message of this protocol."""


def message(event: str, fields: dict[str, Any]) -> str:
    """One line, its end included.

    Raises:
        ValueError: When the event is none of :data:`EVENTS`: a new one must be written down there first.
    """
    if event not in EVENTS:
        raise ValueError(f"{event!r} is no event of the protocol; name it in SSLSegLib/messages.py")
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"schema_version": SCHEMA_VERSION, "time": now, "event": event, **fields}) + "\n"


def read_message(line: bytes, where: str) -> dict[str, Any]:
    """What a whole line says.

    Args:
        line: With or without its end.
        where: For the error: ``"Line 3 of events.jsonl"``.

    Raises:
        MessageError: When it is too long, no JSON object, of a newer version, or names an event that is not known.
    """
    if len(line) > LONGEST_LINE:
        raise MessageError(f"{where} is damaged: it is implausibly long.")
    try:
        said = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"{where} is damaged: it is not JSON.") from error
    version = said.get("schema_version") if isinstance(said, dict) else None
    if type(version) is not int or not isinstance(said.get("event"), str):
        raise MessageError(f"{where} is damaged: it is not an event.")
    if version > SCHEMA_VERSION:
        raise MessageError(f"{where} was written by a newer version of SSLSeg.", remedy="Update SSLSeg.")
    if said["event"] not in EVENTS:
        raise MessageError(f"{where} is damaged: the event {said['event'][:40]!r} is not known.")
    return said


def cut_torn_line(path: Path) -> None:
    """Cut off a last line that a killed process left half-written, before another one writes on."""
    if not path.exists():
        return
    with open(path, "rb+") as log:
        end = log.seek(0, os.SEEK_END)
        whole = end
        while whole > 0:
            start = max(0, whole - 65536)
            log.seek(start)
            newline = log.read(whole - start).rfind(b"\n")
            if newline >= 0:
                whole = start + newline + 1
                break
            whole = start
        if whole != end:
            log.truncate(whole)
