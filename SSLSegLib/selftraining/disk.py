"""What a self-training run takes on disk; a file with several hard links is counted where it was written first."""

from pathlib import Path

from SSLSegLib.selftraining.folders import WorkFolder

__all__ = ["disk_use", "folder_bytes"]


def disk_use(work: WorkFolder) -> dict[str, int]:
    """Bytes of each part that is there: ``base``, ``cross-validation``, ``first``, ``round 1``, ..., ``baseline``.

    A round's images are hard links to those of the base and count there.
    """
    seen: set[tuple[int, int]] = set()
    parts = {"base": work.path / "base", "cross-validation": work.crossvalidation.path, "first": work.first.path}
    parts |= {f"round {number}": work.round(number).path for number in _rounds(work)}
    parts["baseline"] = work.baseline.path
    return {name: folder_bytes(folder, seen) for name, folder in parts.items() if folder.is_dir()}


def folder_bytes(folder: Path, seen: set[tuple[int, int]] | None = None) -> int:
    """Bytes of all files below a folder that are not in ``seen`` (device, inode) yet; they are added to it."""
    seen = set() if seen is None else seen
    total = 0
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        facts = path.stat()
        if (facts.st_dev, facts.st_ino) not in seen:
            seen.add((facts.st_dev, facts.st_ino))
            total += facts.st_size
    return total


def _rounds(work: WorkFolder) -> list[int]:
    rounds = work.path / "rounds"
    return sorted(int(entry.name) for entry in rounds.iterdir() if entry.name.isdigit()) if rounds.is_dir() else []
