"""Where weights lie on this machine, and whether they are what they should be. Imports no torch."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import WeightsError
from ..files import read_json, sha256_of, write_json
from ..resources import resource
from .catalogue import BundledSource, CatalogueEntry, WeightsFile, entry_named, load_catalogue

__all__ = [
    "PINS",
    "Verification",
    "default_weights_folder",
    "find_weights",
    "forget_pins",
    "is_catalogued",
    "lasting_name",
    "pin",
    "read_pins",
    "verify_weights",
    "weights_file",
    "weights_folders",
]

PINS = "pins.json"
"""File in a weights folder: SHA-256 and address of what was downloaded into it. It tells downloads from files that
people have put there, and stands in where the catalogue knows no SHA-256."""


def default_weights_folder() -> Path:
    """Where downloads go: ``SSLSEG_WEIGHTS`` if set, otherwise the user's cache folder."""
    if named := os.environ.get("SSLSEG_WEIGHTS"):
        return Path(named).expanduser()
    import pooch

    return Path(pooch.os_cache("sslseg")) / "weights"


def weights_folders(folder: Path | str | None = None) -> list[Path]:
    """Folders that are searched, in this order: the given one, then :func:`default_weights_folder`."""
    folders = [Path(folder).expanduser()] if folder is not None else []
    return [*folders, default_weights_folder()]


def find_weights(name: str, folder: Path | str | None = None) -> Path:
    """Path of an entry's file, or of its folder if it has several files; sizes are checked, contents are not.

    Args:
        name: Name in the catalogue.
        folder: Searched before the default folder.

    Raises:
        WeightsError: Unknown name, a file is missing (with the ways to get it), or has the wrong size.
    """
    entry = entry_named(name)
    locations = _locations(entry, folder)
    for location in locations:
        present = [file for file in entry.files if entry.path_of(file, location).is_file()]
        if len(present) == len(entry.files):
            for file in entry.files:
                _check_size(entry, file, entry.path_of(file, location))
            return location
    raise _missing(entry, locations)


def is_catalogued(name_or_path: str | Path) -> bool:
    """Whether this is a name in the catalogue, in any case. Such a name always means the catalogue's file, wherever a
    file of that name may lie: what a manifest holds the checksum of and what is loaded must be the same."""
    return str(name_or_path).casefold() in {name.casefold() for name in load_catalogue()}


def weights_file(name_or_path: str | Path, folder: Path | str | None = None) -> Path:
    """Path of weights that people name as they like: by their name in the catalogue, or by the path of a file.

    Args:
        name_or_path: A name in the catalogue; anything else is the path of a file.
        folder: Searched before the default folder.

    Raises:
        WeightsError: See :func:`find_weights`; or there is no such file.
    """
    path = Path(name_or_path)
    if not is_catalogued(name_or_path):
        if path.is_file():
            return path
        if path.name != str(name_or_path):  # no name that was mistyped
            raise WeightsError(
                f"There is no file {name_or_path}.", remedy="Check the path, or use a name from `weights list`."
            )
    return find_weights(str(name_or_path), folder)


def lasting_name(name_or_path: str | Path) -> str:
    """Weights as a manifest names them: by their name in the catalogue, or by a path that holds from any folder."""
    return str(name_or_path) if is_catalogued(name_or_path) else str(Path(name_or_path).absolute())


def _locations(entry: CatalogueEntry, folder: Path | str | None) -> list[Path]:
    if isinstance(entry.source, BundledSource):
        return [resource(entry.source.folder) / entry.files[0].name]
    return [root / entry.relative_path for root in weights_folders(folder)]


def _check_size(entry: CatalogueEntry, file: WeightsFile, path: Path) -> None:
    size = path.stat().st_size
    if file.size is not None and size != file.size:
        raise WeightsError(
            f"{path} has {size} bytes, but {entry.name} has {file.size}: the file is incomplete or another one.",
            remedy=f"Delete it and run `python -m SSLSegLib weights download {entry.name}`, or copy it again.",
        )


def _missing(entry: CatalogueEntry, locations: list[Path]) -> WeightsError:
    looked = " or ".join(str(location) for location in locations)
    if isinstance(entry.source, BundledSource):
        return WeightsError(f"The bundled weights {entry.name} are missing: {looked}.", remedy="Install SSLSeg again.")
    addresses = " ".join(entry.source.url(file.name) for file in entry.files)
    return WeightsError(
        f"The weights {entry.name} are not on this machine (looked for {looked}).",
        remedy=(
            f"Run `python -m SSLSegLib weights download {entry.name}`. On a machine without internet, fetch "
            f"{addresses} elsewhere, copy to {locations[-1]}, or set SSLSEG_WEIGHTS to the folder that holds "
            f"{entry.relative_path}."
        ),
    )


# --- checking contents -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verification:
    """What checking one file gave.

    ``outcome``: ``ok`` (SHA-256 is the catalogue's), ``pinned`` (is that of the first download, the catalogue knows
    none), ``unchecked`` (nothing to compare with), ``wrong`` or ``missing``.
    """

    name: str
    path: Path
    outcome: Literal["ok", "pinned", "unchecked", "wrong", "missing"]
    sha256: str | None = None
    expected: str | None = None


def verify_weights(name: str, folder: Path | str | None = None) -> list[Verification]:
    """Compare every file of an entry with the catalogue, or with the digest of its first download.

    Raises:
        WeightsError: Unknown name.
    """
    entry = entry_named(name)
    locations = _locations(entry, folder)
    location = next((place for place in locations if place.exists()), locations[0])
    return [_verify_file(entry, file, entry.path_of(file, location)) for file in entry.files]


def _verify_file(entry: CatalogueEntry, file: WeightsFile, path: Path) -> Verification:
    if not path.is_file():
        return Verification(entry.name, path, "missing", expected=file.sha256)
    digest = sha256_of(path)
    pinned = read_pins(path.parent).get(file.name, {}).get("sha256")
    expected = file.sha256 or pinned
    if expected is None:
        return Verification(entry.name, path, "unchecked", digest)
    if digest != expected:
        return Verification(entry.name, path, "wrong", digest, expected)
    return Verification(entry.name, path, "ok" if file.sha256 else "pinned", digest, expected)


def read_pins(folder: Path) -> Mapping[str, Mapping[str, str]]:
    """Digests of first downloads into a folder: file name -> ``{"sha256", "source"}``."""
    try:
        pins = read_json(folder / PINS)
        if not isinstance(pins, dict) or not all(isinstance(entry, dict) for entry in pins.values()):
            raise ValueError("it is not a table of files")
        return pins
    except FileNotFoundError:
        return {}
    except (ValueError, OSError) as problem:
        raise WeightsError(
            f"{folder / PINS} is damaged: {problem}", remedy="Delete it and download the weights in that folder again."
        ) from problem


def pin(path: Path, sha256: str, source: str) -> None:
    """Remember a download beside it: its SHA-256, and where it came from."""
    write_json(path.parent / PINS, {**read_pins(path.parent), path.name: {"sha256": sha256, "source": source}})


def forget_pins(folder: Path, names: Collection[str]) -> None:
    """Forget the downloads of these files, which are no longer there."""
    pins = read_pins(folder)
    kept = {name: pinned for name, pinned in pins.items() if name not in names}
    if kept:
        write_json(folder / PINS, kept)
    else:
        (folder / PINS).unlink(missing_ok=True)
