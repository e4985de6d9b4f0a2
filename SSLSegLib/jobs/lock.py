"""One writer per job folder: a lock with an owner and a heartbeat, which is taken over when its owner is gone.

On one machine the owner is asked for directly (process id and start time), so a computer that slept loses nothing.
For an owner on another machine only the heartbeat speaks: the lock file's time stamp against the file system's own
clock, so that two machines need not agree on the time.
"""

import os
import platform
import threading
import uuid
from pathlib import Path
from typing import Any

from SSLSegLib.errors import JobError
from SSLSegLib.files import read_json, write_json
from SSLSegLib.jobs.documents import SCHEMA_VERSION
from SSLSegLib.jobs.manifest import utc_now
from SSLSegLib.processes import CLOCK_STEP

__all__ = ["JobLock", "LockOwner", "lock_owner", "owner_process"]

HEARTBEAT = 10.0  # seconds between signs of life
SILENCE = 120.0  # seconds without one after which an owner on another machine counts as gone

LockOwner = dict[str, Any]


class JobLock:
    """Hold a job folder for writing, as a context manager.

    Raises:
        JobError: On entry, when another living process holds the job; from :meth:`check`, when this one lost it.
    """

    def __init__(self, path: Path, *, heartbeat: float = HEARTBEAT, silence: float = SILENCE) -> None:
        self.path = Path(path)
        self.heartbeat = heartbeat
        self.silence = silence
        self.taken_over_from: LockOwner | None = None
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "JobLock":
        from filelock import FileLock

        # The guard is held for a moment by whoever looks and decides, so that two cannot take over the same stale lock.
        with FileLock(self.path.with_name(f".{self.path.name}.guard"), timeout=30):
            owner = lock_owner(self.path)
            if owner is not None and self._is_alive(owner):
                raise JobError(
                    f"Process {owner.get('pid')} on {owner.get('host')} runs this job since {owner.get('since')}.",
                    remedy="Wait for it, or cancel it.",
                )
            self.taken_over_from = owner
            write_json(self.path, self._own_entry())
        self._thread = threading.Thread(target=self._beat, name="job-heartbeat", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._is_mine():
            self.path.unlink(missing_ok=True)

    @property
    def lost(self) -> bool:
        """Whether another process has taken the job over."""
        return self._lost.is_set()

    def check(self) -> None:
        """Say so when the lock is no longer ours (this machine was thought dead and another one took over)."""
        if self.lost:
            raise JobError("Another process took this job over while this one was asleep.", remedy="Let it finish.")

    def _own_entry(self) -> LockOwner:
        import psutil

        return {
            "schema_version": SCHEMA_VERSION,
            "pid": os.getpid(),
            "process_start": psutil.Process().create_time(),
            "host": platform.node(),
            "since": utc_now(),
            "token": self._token,
        }

    def _is_alive(self, owner: LockOwner) -> bool:
        if owner.get("host") == platform.node():
            return owner_process(owner) is not None
        return self._age() < self.silence

    def _age(self) -> float:
        probe = self.path.with_name(f".tmp-{self._token}")
        try:
            probe.touch()
            return probe.stat().st_mtime - self.path.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(self.heartbeat):
            if not self._is_mine():
                self._lost.set()
                return
            try:
                os.utime(self.path)
            except OSError:  # a network folder that is away for a moment; the next beat tries again
                continue

    def _is_mine(self) -> bool:
        owner = lock_owner(self.path)
        return owner is not None and owner.get("token") == self._token


def lock_owner(path: Path) -> LockOwner | None:
    """Who holds the lock; None when nobody does. A damaged lock file counts as nobody's: locks are written whole."""
    try:
        owner = read_json(Path(path))
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) else None


def owner_process(owner: LockOwner) -> Any:
    """The owner's psutil process if it lives on this machine, else None. A reused process id is not the owner."""
    import psutil

    if owner.get("host") != platform.node():
        return None
    try:
        process = psutil.Process(int(owner["pid"]))
        same = abs(process.create_time() - float(owner["process_start"])) < CLOCK_STEP
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.NoSuchProcess, KeyError, TypeError, ValueError, OverflowError):
        return None
    except psutil.AccessDenied:  # somebody else's process: it cannot be this job's owner unless it is alive
        return psutil.Process(int(owner["pid"]))
