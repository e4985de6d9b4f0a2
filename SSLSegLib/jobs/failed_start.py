"""A job that failed before its first result: its folder may be given to the corrected command.

Without that, whoever mistyped an option would have to delete the folder, or to choose another one. Nothing is deleted:
what the failed start wrote goes to ``logs/replaced``.
"""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from SSLSegLib.errors import JobError
from SSLSegLib.jobs.links import refuse_links
from SSLSegLib.jobs.lock import JobLock
from SSLSegLib.jobs.manifest import Manifest, utc_now, write_manifest

if TYPE_CHECKING:
    from SSLSegLib.jobs.folder import Job

__all__ = ["failed_at_start", "free_place", "replace_failed_start"]

_WRITTEN_BY_A_START = {"manifest.json", "state.json", "events.jsonl", "lock.json", ".lock.json.guard", "logs"}


def failed_at_start(job: "Job") -> bool:
    """Whether a job has failed and its folder holds nothing but what every start writes: no result, no training."""
    try:
        if job.state().status != "failed":
            return False
    except JobError:  # a damaged state says nothing
        return False
    results = job.folder / "results"
    if results.exists() and not (results.is_dir() and not any(results.iterdir())):
        return False
    there = {path.name for path in job.folder.iterdir() if not path.name.startswith(".tmp-")}
    return there <= _WRITTEN_BY_A_START | {"results"}


def replace_failed_start(job: "Job", manifest: Manifest) -> "Job | None":
    """Make the folder of a job that failed before its first result that of other work.

    Args:
        job: Whose folder.
        manifest: The other work, checked.

    Returns:
        The new job, its ``put_aside`` naming where the old one's files are; None where the old one is more than a
        failed start, and nothing was changed.

    Raises:
        JobError: Somebody is running the job, or a link lies in its folder.
        OSError: The folder cannot be written.
    """
    from SSLSegLib.jobs.folder import JobState

    if not failed_at_start(job):
        return None
    refuse_links(job.folder)
    with JobLock(job.lock_path, runs=False):
        if not failed_at_start(job):  # it was begun again meanwhile
            return None
        aside = free_place(job.logs / "replaced" / "failed-start")
        aside.mkdir(parents=True)
        shutil.copy2(job.folder / "manifest.json", aside / "manifest.json")
        shutil.copy2(job.folder / "state.json", aside / "state.json")
        # In this order it can be killed at any moment: the folder is the old failed job, or the new one to be begun.
        job.write_state(job.state().model_copy(update={"checked": False}))
        write_manifest(job.folder / "manifest.json", manifest)
        new = type(job)(job.folder, manifest)
        for path in (job.events_path, *(path for path in sorted(job.logs.iterdir()) if path.is_file())):
            if path.exists():
                os.replace(path, aside / path.name)
        new.write_state(JobState())
        new.put_aside = aside
    return new


def free_place(path: Path) -> Path:
    """The path with the time in its name, and a number where that is taken."""
    stamped = path.with_name(f"{path.name}-{utc_now().replace(':', '').replace('+0000', 'Z')}")
    candidates = (stamped if number == 0 else stamped.with_name(f"{stamped.name}-{number}") for number in range(10_000))
    return next(candidate for candidate in candidates if not candidate.exists())
