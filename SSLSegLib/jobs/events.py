"""The event log of a job: append-only, one JSON object a line, readable while it is being written."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from SSLSegLib.errors import JobError
from SSLSegLib.messages import LONGEST_LINE, MessageError, cut_torn_line, message, read_message

__all__ = ["EventFollower", "EventLog", "read_events"]

_SHORTEST_INTERVAL = 0.25  # seconds between two "progress" events of one stage: a reader needs no more


class EventLog:
    """The one writer of an event log (the job's lock sees to it that there is only one).

    A line that a killed process left half-written is cut off when the log is opened for writing.
    It is a :class:`~SSLSegLib.progress.Progress` listener, so it can be given to any room.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        cut_torn_line(self.path)
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (closed by close())
        self._last_progress: dict[str, float] = {}

    def __call__(self, event: str, **fields: Any) -> None:
        """Append one event of :data:`SSLSegLib.messages.EVENTS`; the fields must be JSON-serialisable.

        Raises:
            OSError: When it could not be written, on a full disk perhaps; no part of it is in the log then.
        """
        if event == "progress" and not self._is_due(fields):
            return
        left = memoryview(message(event, fields).encode("ascii"))
        before = os.fstat(self._file.fileno()).st_size
        try:
            while left:  # a disk that is nearly full takes a part and says nothing
                left = left[self._file.write(left) :]
        except OSError:
            os.ftruncate(self._file.fileno(), before)
            raise

    def _is_due(self, fields: dict[str, Any]) -> bool:
        stage, now = str(fields.get("stage")), time.monotonic()
        since = now - self._last_progress.get(stage, -_SHORTEST_INTERVAL)
        if since < _SHORTEST_INTERVAL and fields.get("done") != fields.get("total"):
            return False
        self._last_progress[stage] = now
        return True

    def close(self) -> None:
        """Put everything on the disk and close the file."""
        if not self._file.closed:
            with contextlib.suppress(OSError):  # every line is with the system already; the run's own end matters more
                os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> "EventLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class EventFollower:
    """Reads a growing event log; each :meth:`poll` gives what is new.

    A last line without its newline is not an event yet and is left for later.

    Args:
        path: The log; it need not exist yet.
        only_new: Leave out what stands in the log now.
    """

    def __init__(self, path: Path, *, only_new: bool = False) -> None:
        self.path = Path(path)
        self._offset = 0
        self._line = 0
        if only_new:
            self.poll()

    def poll(self) -> list[dict[str, Any]]:
        """All events that are complete and have not been given yet.

        Raises:
            JobError: When a line is damaged, names an unknown event, or was written by a newer version.
        """
        if not os.path.exists(self.path):
            return []
        if not self.path.is_file():
            raise JobError(f"{self.path} is not a regular file.", remedy="Make a new job in another folder.")
        events = []
        with open(self.path, "rb") as log:
            log.seek(self._offset)
            while (line := log.readline(LONGEST_LINE)).endswith(b"\n"):
                self._line += 1
                events.append(self._parse(line))
                self._offset += len(line)
        if len(line) == LONGEST_LINE:
            raise JobError(f"Line {self._line + 1} of {self.path} is damaged: it is implausibly long.")
        return events

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            return read_message(line, f"Line {self._line} of {self.path}")
        except MessageError as error:
            raise JobError(error.problem, remedy=error.remedy) from error

    def follow(self, until: Callable[[], bool], interval: float = 0.2) -> Iterator[dict[str, Any]]:
        """Yield events as they come, until ``until()`` is true and nothing new is left."""
        while True:
            ended = until()  # asked before reading, so that the last events are not missed
            yield from self.poll()
            if ended:
                return
            time.sleep(interval)


def read_events(path: Path) -> list[dict[str, Any]]:
    """All complete events of a log."""
    return EventFollower(path).poll()
