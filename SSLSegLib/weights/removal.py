"""What weights take up on this machine, and taking downloaded ones away again. Imports no torch."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import WeightsError
from .catalogue import BundledSource, CatalogueEntry, entry_named, load_catalogue
from .store import default_weights_folder, forget_pins, read_pins, weights_folders

__all__ = ["InstalledWeights", "delete_weights", "installed_weights"]

_WORKER = "SSLSegLib.jobs.worker"  # the module that every job's process runs, followed by its folder
_PART = ".part"  # what a broken-off download ends in, see transfer.py


@dataclass(frozen=True)
class InstalledWeights:
    """One set of weights that lies on this machine.

    Attributes:
        entry: What the catalogue says of it.
        location: Its file, or its folder where it has several.
        size: Bytes that it takes up.
        origin: ``bundled`` with this library, ``downloaded`` by it, or put there by somebody (``own``).
    """

    entry: CatalogueEntry
    location: Path
    size: int
    origin: Literal["bundled", "downloaded", "own"]


def installed_weights(folder: Path | str | None = None) -> list[InstalledWeights]:
    """All sets of the catalogue that lie on this machine, also incomplete ones, in the catalogue's order.

    Args:
        folder: Looked at before the default folder.
    """
    found = []
    for entry in load_catalogue().values():
        if isinstance(entry.source, BundledSource):
            found += _bundled(entry)
            continue
        for root in weights_folders(folder):
            files = list(_files(entry, root))
            if files:
                size = sum(path.stat().st_size for path in files)
                found.append(InstalledWeights(entry, root / entry.relative_path, size, _origin(entry, root)))
    return found


def delete_weights(name: str, folder: Path | str | None = None) -> int:
    """Delete downloaded weights. Files that somebody else has put there, and other files beside them, stay.

    Args:
        name: Name in the catalogue.
        folder: The weights folder they lie in; the default one where it is None.

    Returns:
        Bytes freed.

    Raises:
        WeightsError: Unknown name, nothing there, weights that ship with SSLSeg, a file that was not downloaded by it,
            or weights that a running job uses: nothing is deleted then.
    """
    entry = entry_named(name)
    if isinstance(entry.source, BundledSource):
        raise WeightsError(f"{entry.name} comes with SSLSeg and takes no room of its own.", remedy="Leave it.")
    root = Path(folder).expanduser() if folder is not None else default_weights_folder()
    location = root / entry.relative_path
    files = list(_files(entry, root))
    if not files:
        raise WeightsError(
            f"There is nothing of {entry.name} in {root}.",
            remedy="See `python -m SSLSegLib weights list` for what lies where.",
        )
    if _origin(entry, root) == "own":
        raise WeightsError(
            f"{location} was not downloaded by SSLSeg: it is yours to keep or to delete.",
            remedy="Delete it by hand if nobody needs it.",
        )
    if (user := _user_of(location)) is not None:
        raise WeightsError(
            f"{entry.name} is in use by the job in {user}.", remedy="Wait for it or cancel it, then delete again."
        )
    freed = 0
    for path in files:
        size = path.stat().st_size
        try:
            path.unlink()
        except OSError as reason:
            raise WeightsError(
                f"{path} cannot be deleted: {reason.strerror or reason}.",
                remedy="Close what uses it, or ask who may write into that folder.",
            ) from reason
        freed += size
    parent = location if len(entry.files) > 1 else root
    forget_pins(parent, [file.name for file in entry.files])
    if len(entry.files) > 1 and not any(location.iterdir()):
        shutil.rmtree(location)
    return freed


def _bundled(entry: CatalogueEntry) -> list[InstalledWeights]:
    from .store import find_weights

    try:
        location = find_weights(entry.name)
    except WeightsError:
        return []
    return [InstalledWeights(entry, location, location.stat().st_size, "bundled")]


def _files(entry: CatalogueEntry, root: Path) -> Iterator[Path]:
    """The entry's files that are there, with what broken-off downloads have left of them."""
    location = root / entry.relative_path
    for file in entry.files:
        path = entry.path_of(file, location)
        for each in (path, path.with_name(path.name + _PART)):
            if each.is_file():
                yield each


def _origin(entry: CatalogueEntry, root: Path) -> Literal["downloaded", "own"]:
    """Downloaded: no links, and noted in the folder's pins, or in the default folder and of the published size."""
    location = root / entry.relative_path
    parent = location if len(entry.files) > 1 else root
    noted = read_pins(parent)
    for file in entry.files:
        path = entry.path_of(file, location)
        if not path.is_file():
            continue
        known = file.name in noted
        usual = root == default_weights_folder() and file.size is not None and path.stat().st_size == file.size
        if location.is_symlink() or path.is_symlink() or not (known or usual):
            return "own"
    return "downloaded"


def _user_of(location: Path) -> Path | None:
    """Folder of a running job of this user whose manifest names the weights, or None."""
    import psutil

    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        if _WORKER not in command:
            continue
        after = command[command.index(_WORKER) + 1 :]
        folder = Path(after[0]) if after else None
        try:
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8")) if folder else None
        except (OSError, ValueError):
            continue
        if any(_lies_in(text, location) for text in _texts(manifest)):
            return folder
    return None


def _lies_in(text: str, location: Path) -> bool:
    if not Path(text).is_absolute():
        return False
    path, place = Path(text).resolve(), location.resolve()
    return path == place or place in path.parents


def _texts(value: Any) -> Iterator[str]:
    """All texts in a JSON document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
