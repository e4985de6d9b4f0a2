"""Whether memory and disk have room for a run, or for its next result: refused in words where they have not."""

import shutil
from pathlib import Path

import psutil

from SSLSegLib.errors import JobError
from SSLSegLib.jobs.estimate import Estimate

__all__ = ["require_disk", "require_room"]


def require_room(found: Estimate, folder: Path, *, available: int | None = None) -> bool:
    """Refuse a run that memory or disk cannot hold, before it starts.

    Args:
        found: The estimate.
        folder: The job folder.
        available: Bytes of memory that are free; of this computer by default.

    Returns:
        Whether image features of the case in hand must go to files to fit.

    Raises:
        JobError: Saying how much is needed and how much there is.
    """
    free = shutil.disk_usage(folder).free
    if found.disk > free:
        raise JobError(
            f"The run needs up to {found.disk / 1e9:.3g} GB of disk; {free / 1e9:.3g} GB are free at {folder}.",
            remedy="Make space there, or choose another folder with --out.",
        )
    if available is None:
        # The program itself is running already, and its memory is no longer among what is free.
        available = psutil.virtual_memory().available + psutil.Process().memory_info().rss
    if found.memory_on_disk > available:
        raise JobError(
            f"The run needs about {found.memory_on_disk / 1e9:.3g} GB of memory; {available / 1e9:.3g} GB are free.",
            remedy="Close other programs, crop or resample the largest scans, or use a computer with more memory.",
        )
    on_disk = found.memory > available
    if on_disk and found.disk + found.memory - found.memory_on_disk > free:
        raise JobError(
            f"The run needs about {found.memory / 1e9:.3g} GB of memory; {available / 1e9:.3g} GB are free, and the "
            "disk has no room for what does not fit.",
            remedy="Close other programs, or make space on the disk.",
        )
    return on_disk


def require_disk(folder: Path, needed: int) -> None:
    """Refuse to begin with files that the disk may not hold.

    Raises:
        JobError: Saying how much is needed and how much is free.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise JobError(
            f"The next result may take {needed / 1e6:.1f} MB; {free / 1e6:.1f} MB are free at {folder}.",
            remedy="Make space there and run the job again; finished cases are kept.",
        )
