"""Jobs run from a terminal: with progress bars, and a word at the end on where everything lies."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from SSLSegLib.commands.shared import console, say

if TYPE_CHECKING:
    from SSLSegLib.jobs.folder import Job
    from SSLSegLib.jobs.manifest import Manifest

__all__ = ["create_job", "print_outputs", "run_in_terminal", "run_manifest"]


def create_job(out: Path, manifest: "Manifest", *, scheduler: str = "local", cpu_if_needed: bool = False) -> "Job":
    """Make the job of a manifest, or come back to it, once what can be known to fail on this machine has been tried.

    Args:
        out: The job folder.
        manifest: What to do.
        scheduler, cpu_if_needed: Where, see :class:`~SSLSegLib.jobs.folder.Job`.

    Raises:
        SSLSegError: A device or the scheduler cannot be used, and nothing was written; or the folder holds another job.
    """
    from SSLSegLib.jobs.folder import Job
    from SSLSegLib.jobs.kinds import job_kind
    from SSLSegLib.jobs.schedulers import require_devices, require_scheduler

    require_scheduler(scheduler, job_kind(manifest.kind))
    require_devices(scheduler, _devices(manifest))
    job = Job.create(out, manifest)
    job.scheduler, job.cpu_if_needed = scheduler, cpu_if_needed
    if job.put_aside is not None:
        said = f"Other work had failed here before its first result; what it wrote is kept in {job.put_aside}."
        say(said)
    return job


def _devices(manifest: "Manifest") -> list[str]:
    """Every device that a manifest names."""
    parameters = manifest.checked_parameters()
    training = getattr(parameters, "training", None)
    named = {*getattr(parameters, "devices", ()), *getattr(training, "devices", ())}
    named |= {parameters.device} if isinstance(getattr(parameters, "device", None), str) else set()
    return sorted(named)


def run_manifest(
    out: Path,
    manifest: "Manifest",
    *,
    scheduler: str = "local",
    cpu_if_needed: bool = False,
    model: str | None = None,
) -> None:
    """Make the job of a manifest whose cases have just been checked, or come back to it, and run it to its end.

    Args:
        out: The job folder.
        manifest: What to do.
        scheduler, cpu_if_needed: Where, see :class:`~SSLSegLib.jobs.folder.Job`.
        model: Folder in the job of the network that it trains, to be named at the end.

    Raises:
        SSLSegError: See :func:`create_job`; or the run fails.
    """
    job = create_job(out, manifest, scheduler=scheduler, cpu_if_needed=cpu_if_needed)
    run_in_terminal(job, checked=True)
    print_outputs(job)
    if model is not None:
        say(f"Model: {job.folder / model}")


def run_in_terminal(job: "Job", *, checked: bool = False) -> None:
    """Run a job with progress bars; leave with exit code 3 where it was cancelled."""
    from SSLSegLib.jobs.runner import EXIT_CODES, run_job
    from SSLSegLib.jobs.terminal import TerminalProgress
    from SSLSegLib.processes import as_argument

    with TerminalProgress(console) as progress:
        state = run_job(job, progress, checked=checked)
    if state.status == "cancelled":
        said = f"Cancelled. Resume with: python -m SSLSegLib run {as_argument(job.folder)}"
        say(said)
        raise typer.Exit(EXIT_CODES["cancelled"])


def print_outputs(job: "Job") -> None:
    """Say where the results lie."""
    say(f"Results: {job.folder / 'results'}")
    for name, path in {
        "Report": job.report / "report.html",
        "Scene": job.folder / "scene.mrb",
    }.items():
        if path.exists():
            say(f"{name}: {path}")
