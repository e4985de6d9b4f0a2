"""Run a job in this process: look before leaping, skip what is finished, and always say how it ended."""

import logging
import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from SSLSegLib.errors import JobError, SSLSegError
from SSLSegLib.jobs.events import EventLog
from SSLSegLib.jobs.folder import Job, JobState, Status
from SSLSegLib.jobs.kinds import job_kind
from SSLSegLib.jobs.links import refuse_links
from SSLSegLib.jobs.lock import JobLock
from SSLSegLib.jobs.manifest import software_versions, utc_now
from SSLSegLib.jobs.schedulers import require_scheduler
from SSLSegLib.progress import Progress, silent

__all__ = ["EXIT_CODES", "run_job", "termination_as_interrupt"]

# How a process that ran a job ends: 0 finished, 1 unexpected, 2 an error with a way out, 3 cancelled.
EXIT_CODES: dict[Status, int] = {"finished": 0, "failed": 2, "cancelled": 3}


def run_job(
    folder: Path | Job, progress: Progress = silent, *, checked: bool = False, unless_cancelled: bool = False
) -> JobState:
    """Run or resume a job until it is finished, has failed or was cancelled.

    Args:
        folder: The job, its folder, or the manifest in it.
        progress: Hears every event, beside the job's own log.
        checked: The caller has just passed the pre-flight itself.
        unless_cancelled: Do nothing where somebody has cancelled the job since this run was asked for.

    Returns:
        The final state, ``finished`` or ``cancelled`` (by Ctrl-C or a polite termination).

    Raises:
        SSLSegError: The reason of the failure, which also stands in the state.
        JobError: Also when another process is running the job, or it is to be done on a cluster and cannot be; nothing
            is written then.
    """
    job = folder if isinstance(folder, Job) else Job.open(folder)
    kind = job_kind(job.manifest.kind)
    require_scheduler(job.scheduler, kind)
    refuse_links(job.folder)
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(JobLock(job.lock_path))
            log = stack.enter_context(EventLog(job.events_path))
            job.logs.mkdir(exist_ok=True)
            stack.enter_context(_text_log(job.logs / "job.log"))
        except OSError as error:
            remedy = "Give yourself the right to write there, or copy the job folder to a place of your own."
            raise JobError(
                f"The job folder {job.folder} cannot be written: {error.strerror}.", remedy=remedy
            ) from error
        _refuse_other_work(job)
        if unless_cancelled and job.state().status == "cancelled":
            return job.state()
        state = job.state().model_copy(
            update={"status": "running", "message": "", "remedy": "", "started": utc_now(), "ended": None}
        )

        def tell(event: str, **fields: Any) -> None:
            lock.check()
            if event == "cases":
                state.cases_done, state.cases_total = fields["done"], fields["total"]
                job.write_state(state)
            log(event, **fields)
            progress(event, **fields)

        finished = False

        def end(status: Status, message: str = "", remedy: str = "", **fields: Any) -> None:
            nonlocal finished
            if finished:  # a signal or a closed terminal after that changes nothing
                return
            state.status, state.message, state.remedy, state.ended = status, message, remedy, utc_now()
            said = {"message": message, "remedy": remedy} if message else {}
            if not lock.lost:  # else the state is another's
                # A failure must be said, to the caller at least, where a full disk does not let it be written.
                with nullcontext() if status == "finished" else suppress(OSError):
                    job.write_state(state)
                    finished = status == "finished"
                    log(status, **said, **fields)
            progress(status, **said, **fields)

        try:
            stack.enter_context(termination_as_interrupt())
            job.write_state(state)
            tell("started", kind=kind.name, versions=software_versions(), resumed=lock.taken_over_from is not None)
            if others := _other_software(job):
                tell(
                    "warning", message=f"The job was made with {others}; results of both may differ in their last bits."
                )
            if not checked:
                kind.preflight(job, tell)
            state.checked = True
            job.write_state(state)
            kind.run(job, tell)
            lock.check()
            end("finished")
        except KeyboardInterrupt:
            end("cancelled")
        except SSLSegError as error:
            if not lock.lost:
                end("failed", error.problem, error.remedy or "", case=error.case_id)
            raise
        except MemoryError as error:
            out_of_memory = JobError(
                "The computer has too little free memory for this job.",
                remedy="Close other programs or use --preset fast; finished cases are kept, run the job again.",
            )
            end("failed", out_of_memory.problem, out_of_memory.remedy or "")
            raise out_of_memory from error
        except OSError as error:
            failure = _disk_failure(error, job)
            logging.getLogger("SSLSegLib").error("%s", traceback.format_exc())
            end("failed", failure.problem, failure.remedy or "")
            raise failure from error
        except BaseException as error:
            logging.getLogger("SSLSegLib").error("%s", traceback.format_exc())
            remedy = f"See {job.logs / 'job.log'}; finished cases are kept, run the job again."
            end("failed", f"Unexpected error: {type(error).__name__}: {error}", remedy)
            raise
    return state


def _refuse_other_work(job: Job) -> None:
    """Under the lock: two commands may have made different jobs of one empty folder in the same moment."""
    if not Job.open(job.folder).manifest.same_work(job.manifest):
        raise JobError(f"{job.folder} holds other work by now.", remedy="Choose another folder with --out.")


def _other_software(job: Job) -> str:
    """What of the software the manifest names in another version than the one here."""
    here = software_versions()
    before = {name: version for name, version in job.manifest.versions.items() if here.get(name) != version}
    return ", ".join(f"{name} {version} (here {here.get(name, 'none')})" for name, version in before.items())


def _disk_failure(error: OSError, job: Job) -> JobError:
    import errno

    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return JobError(
            f"The disk of {job.folder} is full.",
            remedy="Make space and run the job again; finished cases are kept.",
        )
    return JobError(f"A file could not be read or written: {error}.", remedy=f"See {job.logs / 'job.log'}.")


@contextmanager
def termination_as_interrupt() -> Iterator[None]:
    """SIGTERM (and Ctrl-Break on Windows) end the run like Ctrl-C, where Python lets us say so: in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    numbers = [signal.SIGTERM, *([signal.SIGBREAK] if hasattr(signal, "SIGBREAK") else [])]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _text_log(path: Path) -> Iterator[None]:
    logger = logging.getLogger("SSLSegLib")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk is said once, by the run
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        with suppress(OSError):  # what a full disk has left in the buffer
            handler.close()
