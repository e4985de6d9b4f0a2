"""Run a job in a child process of its own, follow it, and end it with everything it started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from SSLSegLib.errors import JobError
from SSLSegLib.jobs.events import EventFollower
from SSLSegLib.jobs.folder import Job, JobState
from SSLSegLib.jobs.links import refuse_links
from SSLSegLib.jobs.lock import JobLock, is_here, is_silent, lock_owner, owner_process
from SSLSegLib.jobs.manifest import utc_now
from SSLSegLib.processes import kill_tree, library_path, real_interpreter, this_process

__all__ = ["JobProcess", "cancel_job", "start_job"]

_ATTEMPTS = 20  # at cancelling a job that somebody begins, or cancels, at the same moment
_PAUSE = 0.1  # seconds between them


def start_job(
    folder: Path,
    *,
    interpreter: str | None = None,
    library: Path | None = None,
    environment: dict[str, str] | None = None,
    detached: bool = False,
    worker: str = "SSLSegLib.jobs.worker",
) -> "JobProcess":
    """Start or resume a job in a child process.

    Args:
        folder: The job folder.
        interpreter: Python to use; default :func:`~SSLSegLib.processes.real_interpreter`.
        library: Folder that holds ``SSLSegLib``; default the one this code lies in.
        environment: Variables added to the child's environment; this process's own stays as it is.
        detached: Let the child outlive this process (it can be found again by its job folder).
        worker: Module that the child runs; one that registers further job kinds ends in ``worker.main()``.

    Raises:
        JobError: When there is no job in the folder, or the child cannot be started.
    """
    job = Job.open(folder)
    if _lives_elsewhere(job):
        raise JobError(f"The job in {job.folder} is already running.", remedy="Wait for it, or cancel it.")
    refuse_links(job.folder)
    try:
        job.logs.mkdir(exist_ok=True)
        # A worker that dies before it can say anything must not leave an older run's end standing.
        fresh = {"status": "pending", "message": "", "remedy": "", "ended": None}
        job.write_state(job.state().model_copy(update=fresh))
    except OSError as error:
        remedy = "Make space there and give yourself the right to write, or copy the job folder to a place of your own."
        raise JobError(f"The job folder {job.folder} cannot be written: {error.strerror}.", remedy=remedy) from error
    variables = {**os.environ, "PYTHONPATH": library_path(library), "PYTHONUNBUFFERED": "1", **(environment or {})}
    command = [str(interpreter or real_interpreter()), "-m", worker, str(job.folder), "--unless-cancelled"]
    if not detached:
        parent, start = this_process()
        command += ["--parent", str(parent), "--parent-start", str(start)]
    # Noise that libraries print goes to a file; what the job says goes through its event log.
    follower = EventFollower(job.events_path, only_new=True)
    with open(job.logs / "worker.log", "ab") as output:
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=variables,
                cwd=job.folder,
                start_new_session=sys.platform != "win32",
                # Windows: a group of its own, to be stopped as one, and no console beside the application.
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
                | getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            raise JobError(f"The worker could not be started: {error}.") from error
    return JobProcess(job, child, follower)


class JobProcess:
    """A job that runs in a child process."""

    def __init__(self, job: Job, child: "subprocess.Popen[bytes]", events: EventFollower) -> None:
        self.job = job
        self._child = child
        self._events = events

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether the child lives."""
        return self._child.poll() is None

    def poll(self) -> list[dict[str, Any]]:
        """Events since the last call, without waiting."""
        return self._events.poll()

    def follow(self) -> Iterator[dict[str, Any]]:
        """Yield events until the child has ended."""
        yield from self._events.follow(lambda: not self.running)

    def wait(self, timeout: float | None = None) -> JobState:
        """Wait for the child and return how the job ended, also when the child could not say so itself.

        Raises:
            JobError: When the time ran out.
        """
        try:
            code = self._child.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise JobError(f"The job is still running after {timeout} s.") from error
        return _conclude(self.job, _how_it_died(code))

    def cancel(self, patience: float = 3.0) -> JobState:
        """End the child and everything it started; the job can be resumed.

        Args:
            patience: Seconds the child has to end by itself before it is killed.
        """
        kill_tree(self._child.pid, patience=patience)
        self._child.wait()
        return _conclude(self.job, None)


def cancel_job(folder: Path, patience: float = 3.0) -> JobState:
    """Cancel a job whoever started it, found by its lock. One that is just starting finds out and ends by itself.

    Raises:
        JobError: When it runs on another machine, or somebody begins it again and again.
    """
    job = Job.open(folder)
    for _ in range(_ATTEMPTS):
        owner = lock_owner(job.lock_path)
        process = owner_process(owner) if owner is not None else None
        if process is not None:
            kill_tree(process.pid, patience=patience)
        elif owner is not None and not is_here(owner) and not is_silent(job.lock_path):
            remedy = "Cancel it there. If that computer is gone, try again in two minutes."
            raise JobError(f"The job runs on {owner.get('host')}.", remedy=remedy)
        if job.state().status not in ("running", "pending"):
            return job.state()
        with ExitStack() as stack:
            try:
                # So that nobody takes it up while its end is written.
                stack.enter_context(JobLock(job.lock_path, runs=False))
            except JobError:
                time.sleep(_PAUSE)
                continue
            except OSError as error:
                raise JobError(f"The job folder {job.folder} cannot be written: {error.strerror}.") from error
            return _write_end(job, None)
    raise JobError("The job could not be cancelled: somebody begins it again each time.", remedy="Try again.")


def _lives_elsewhere(job: Job) -> bool:
    owner = lock_owner(job.lock_path)
    return owner is not None and owner_process(owner) is not None


def _conclude(job: Job, died: str | None) -> JobState:
    """The final state; a worker that was killed could not write it, so it is written for it."""
    return job.state() if _lives_elsewhere(job) else _write_end(job, died)


def _write_end(job: Job, died: str | None) -> JobState:
    state = job.state()
    if state.status in ("running", "pending"):
        state.ended = utc_now()
        if died is None:
            state.status = "cancelled"
        else:
            state.status, state.message = "failed", f"The worker ended unexpectedly ({died})."
            state.remedy = f"Run the job again: finished cases are kept. If it happens again, see {job.logs}."
        with suppress(OSError):  # on a full disk it is at least returned
            job.write_state(state)
    return state


def _how_it_died(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"{name}; the system may have run out of memory" if name == "SIGKILL" else name
