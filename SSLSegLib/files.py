"""Files that are whole or absent: write beside the target, then replace it in one step. And reading with bounds."""

import errno
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["LARGEST_JSON", "atomic_path", "read_json", "sha256_of", "write_json", "write_text"]

LARGEST_JSON = 64 * 2**20
"""Bytes: about a hundred thousand cases, and a bound on what a hostile file can cost."""


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path in the target's folder; on success it replaces the target, on failure it is removed.

    The temporary name ends like the target (``.nii.gz`` stays ``.nii.gz``), for writers that go by the ending.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".tmp-{os.getpid()}-{target.name}")
    temporary.unlink(missing_ok=True)  # never through a link that was laid there
    try:
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(target: Path, content: Any) -> None:
    """Write JSON atomically, indented, keys in the given order."""
    write_text(target, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, *, limit: int = LARGEST_JSON) -> Any:
    """Parse a JSON file that may come from anywhere.

    Raises:
        OSError: It is missing, is no regular file (a pipe would wait for ever), or cannot be read.
        ValueError: It is larger than ``limit`` bytes, no UTF-8, no JSON, too deeply nested, or holds half a character.
    """
    found = os.stat(path)  # ValueError where the name holds a null character
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    if found.st_size > limit:
        raise ValueError(f"it is implausibly large ({found.st_size} bytes)")
    with open(path, "rb") as opened:
        content = opened.read(limit + 1)
    try:
        parsed = json.loads(content.decode("utf-8-sig"))  # editors on Windows begin a file with a mark that says UTF-8
        json.dumps(parsed, ensure_ascii=False).encode("utf-8")  # half a surrogate pair can be parsed but never written
    except RecursionError as error:
        raise ValueError("it is too deeply nested") from error
    return parsed


def sha256_of(path: Path) -> str:
    """Hex SHA-256 digest of a file's bytes."""
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
