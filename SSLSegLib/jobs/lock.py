"""One writer per job folder: a lock with an owner and a heartbeat, which is taken over when its owner is gone.

On one machine the owner is asked for directly (process id and start), so a computer that slept loses nothing. For an
owner on another machine only the heartbeat speaks: the lock file's time stamp against the file system's own clock, so
that two machines need not agree on the time. A machine is known by its name and, on Linux, by its boot and its
namespace of processes: two computers may both be called "localhost", and containers count their processes anew.
"""

import errno
import os
import platform
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from SSLSegLib.errors import JobError
from SSLSegLib.files import read_json, write_json
from SSLSegLib.jobs.documents import SCHEMA_VERSION
from SSLSegLib.jobs.manifest import utc_now
from SSLSegLib.processes import CLOCK_STEP, since_boot

__all__ = ["JobLock", "LockOwner", "is_here", "is_silent", "lock_owner", "owner_process"]

HEARTBEAT = 10.0  # seconds between signs of life
SILENCE = 120.0  # seconds without one after which an owner on another machine counts as gone
_LOOK = 2.0  # seconds after which :meth:`JobLock.check` looks at the file itself: this machine may have slept

LockOwner = dict[str, Any]


class JobLock:
    """Hold a job folder for writing, as a context manager.

    Args:
        path: The lock file.
        runs: Whether the holder does the job's work. One who only tidies up for a moment is never ended by those who
            cancel the job: it may be the application, or another who cancels.
        heartbeat, silence: Seconds between signs of life, and without one until an owner elsewhere counts as gone.

    Raises:
        JobError: On entry, when another living process holds the job; from :meth:`check`, when this one lost it.
    """

    def __init__(
        self, path: Path, *, runs: bool = True, heartbeat: float = HEARTBEAT, silence: float = SILENCE
    ) -> None:
        self.path = Path(path)
        self.runs = runs
        self.heartbeat = heartbeat
        self.silence = silence
        self.taken_over_from: LockOwner | None = None
        self._token = uuid.uuid4().hex
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._looked = time.time()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "JobLock":
        from filelock import FileLock, Timeout

        # The guard is held for a moment by whoever looks and decides, so that two cannot take over the same stale lock.
        try:
            with FileLock(self.path.with_name(f".{self.path.name}.guard"), timeout=30):
                self._take()
        except Timeout as error:
            raise JobError(
                f"Another process has been looking after {self.path.parent} for half a minute.",
                remedy="Try again; if it stays so, end the process that holds the job folder.",
            ) from error
        except OSError as error:
            if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP):
                raise JobError(
                    f"The file system of {self.path.parent} cannot lock files, so two runs could disturb each other.",
                    remedy="Put the job folder on another disk, or have locks switched on for this one.",
                ) from error
            raise
        self._looked = time.time()
        self._thread = threading.Thread(target=self._beat, name="job-heartbeat", daemon=True)
        self._thread.start()
        return self

    def _take(self) -> None:
        owner = lock_owner(self.path)
        if owner is None and _is_hidden(self.path) and not is_silent(self.path, self.silence):
            raise JobError(
                f"Somebody else runs the job in {self.path.parent}, who lets nobody read its lock file.",
                remedy=f"Wait for it. Without a sign of life for {SILENCE / 60:.0f} minutes it can be taken over.",
            )
        if owner is not None and self._is_alive(owner):
            elsewhere = "" if is_here(owner) else f" If that computer is gone, try again in {SILENCE / 60:.0f} minutes."
            raise JobError(
                f"Process {owner.get('pid')} on {owner.get('host')} runs this job since {owner.get('since')}.",
                remedy="Wait for it, or cancel it." + elsewhere,
            )
        self.taken_over_from = owner
        write_json(self.path, self._own_entry())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        owner = lock_owner(self.path)
        if owner is not None and owner.get("token") == self._token:
            self.path.unlink(missing_ok=True)

    @property
    def lost(self) -> bool:
        """Whether another process has taken the job over."""
        return self._lost.is_set()

    def check(self) -> None:
        """Say so when the lock is no longer ours (this machine was thought dead and another one took over)."""
        if not self.lost and abs(time.time() - self._looked) > _LOOK:  # this clock goes on while a machine sleeps
            self._looked = time.time()
            if not self._may_be_mine():
                self._lost.set()
        if self.lost:
            raise JobError("Another process took this job over while this one was asleep.", remedy="Let it finish.")

    def _own_entry(self) -> LockOwner:
        import psutil

        return {
            "schema_version": SCHEMA_VERSION,
            "pid": os.getpid(),
            "process_start": psutil.Process().create_time(),
            "since_boot": since_boot(os.getpid()),
            "host": platform.node(),
            "boot": _boot(),
            "since": utc_now(),
            "token": self._token,
            "runs": self.runs,
        }

    def _is_alive(self, owner: LockOwner) -> bool:
        if is_here(owner):
            return _living(owner) is not None
        return not is_silent(self.path, self.silence)

    def _beat(self) -> None:
        while not self._stop.wait(self.heartbeat):
            if not self._may_be_mine():
                self._lost.set()
                return
            try:
                os.utime(self.path)
            except OSError:  # a network folder that is away for a moment; the next beat tries again
                continue

    def _may_be_mine(self) -> bool:
        """Whether nobody else has the lock; a folder that is away for a moment says nothing."""
        try:
            owner = read_json(self.path)
        except FileNotFoundError:
            return not self.path.parent.is_dir()
        except OSError:
            return True
        except ValueError:
            return False
        return isinstance(owner, dict) and owner.get("token") == self._token


def lock_owner(path: Path) -> LockOwner | None:
    """Who holds the lock; None when nobody does. A damaged lock file counts as nobody's: locks are written whole."""
    try:
        owner = read_json(Path(path))
    except (OSError, ValueError):
        return None
    return owner if isinstance(owner, dict) else None


def _is_hidden(path: Path) -> bool:
    """Whether there is a lock file that we may not read: of another user, who shares the folder and not the file."""
    try:
        with open(path, "rb"):
            return False
    except PermissionError:
        return True
    except OSError:
        return False


def is_here(owner: LockOwner) -> bool:
    """Whether an owner is, or was, a process of this machine since it was last booted."""
    return owner.get("host") == platform.node() and owner.get("boot") in (None, _boot())


def is_silent(path: Path, silence: float = SILENCE) -> bool:
    """Whether a lock file has had no heartbeat for so many seconds, by the file system's clock, or is gone."""
    probe = path.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        probe.touch()
        now = probe.stat().st_mtime
        try:
            return now - path.stat().st_mtime >= silence
        except FileNotFoundError:
            return True
    finally:
        probe.unlink(missing_ok=True)


def _boot() -> str | None:
    """What tells this boot of this machine, and this container, from others; None where there is no such thing."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return None


def owner_process(owner: LockOwner) -> Any:
    """The psutil process that runs the job if it lives on this machine, else None.

    None as well for one that holds the lock only to tidy up: it must not be ended.
    """
    return None if owner.get("runs") is False else _living(owner)


def _living(owner: LockOwner) -> Any:
    """The owner's psutil process if it lives on this machine, else None. A reused process id is not the owner."""
    import psutil

    if not is_here(owner):
        return None
    try:
        process = psutil.Process(int(owner["pid"]))
        # Unlike the time of day it does not move when the clock is set. Only with the boot, which nobody can guess: the
        # first process of every machine begins at tick 1 or so, and a job folder may come from anybody.
        if owner.get("boot") is not None and owner.get("since_boot") is not None:
            same = since_boot(process.pid) == owner["since_boot"]
        else:
            same = abs(process.create_time() - float(owner["process_start"])) < CLOCK_STEP
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (psutil.NoSuchProcess, KeyError, TypeError, ValueError, OverflowError):
        return None
    except psutil.AccessDenied:  # somebody else's process: it cannot be this job's owner unless it is alive
        return psutil.Process(int(owner["pid"]))
