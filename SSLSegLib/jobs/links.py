"""A job folder may come from anybody: nothing in it may lead our writing to somewhere else."""

from collections.abc import Iterator
from pathlib import Path

from SSLSegLib.errors import JobError

__all__ = ["refuse_links"]


def refuse_links(folder: Path) -> None:
    """Refuse to write into a job folder that holds links where files of the job are written.

    Links in the inputs are no matter; the folder itself may be reached through one.

    Raises:
        JobError: Naming the link.
    """
    for path in _written_places(Path(folder)):
        if path.is_symlink() or (hasattr(path, "is_junction") and path.is_junction()):  # Python 3.12
            raise JobError(
                f"{path} is a link to another place; a job writes only into its own folder.",
                remedy="Replace the link by a real folder or file, or make a new job where there is room.",
            )


def _written_places(folder: Path) -> Iterator[Path]:
    """Everything at the top of the folder, and everything in the folders that a job writes."""
    yield from sorted(folder.iterdir())
    fixed = ("left-out", "logs", "predictions", "report", "results", "scratch", "unimatch")
    for written in (*(folder / name for name in fixed), *sorted(folder.glob("selftraining*"))):
        if written.is_dir():
            yield from sorted(written.rglob("*"))
