"""Which files of a folder are one case: by their names."""

import re
from pathlib import Path

from SSLSegLib.cases.case import Case, Role, is_safe_id
from SSLSegLib.cases.headers import ENDINGS, has_known_ending
from SSLSegLib.errors import CohortError

__all__ = ["entries", "first_dicom", "grouped", "is_series", "make_cases", "named_files", "stem"]

_CHANNEL = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")


def stem(path: Path) -> str:
    """A file's name without its ending; of ``.seg.nrrd`` both."""
    lowered = path.name.lower()
    for ending in (".seg.nrrd", *ENDINGS):
        if lowered.endswith(ending):
            return path.name[: -len(ending)]
    return path.name


def entries(folder: Path) -> list[Path]:
    """Images in a folder: files of a known kind and DICOM series folders, in the order of their names."""
    if not folder.is_dir():
        return []
    found = (one for one in folder.iterdir() if not one.name.startswith("."))
    return sorted(one for one in found if (has_known_ending(one) if one.is_file() else is_series(one)))


def named_files(folder: Path) -> dict[str, Path]:
    """Label files by their stem.

    Raises:
        CohortError: Where two files have one.
    """
    files = [one for one in entries(folder) if one.is_file()]
    named = {stem(file): file for file in files}
    if len(named) < len(files):
        twice = next(file for file in files if named[stem(file)] != file)
        raise CohortError(f"Several files in {folder} are called '{stem(twice)}'.", remedy="remove all but one.")
    return named


def grouped(folder: Path, label_names: set[str], *, by_channel: bool | None = None) -> dict[str, list[Path]]:
    """Case names and their channels.

    ``NAME_0000`` is a channel only where every name is one, channels count from 0, and labels are named without it:
    ``scan_0001``, ``scan_0002`` may as well be numbered patients.
    """
    plain: dict[str, list[Path]] = {}
    for entry in entries(folder):
        plain.setdefault(stem(entry) if entry.is_file() else entry.name, []).append(entry)
    for case, files in plain.items():
        if len(files) > 1:
            raise CohortError(f"Several images in {folder} are called '{case}'.", remedy="remove all but one.")
    channels: dict[str, dict[int, Path]] = {}
    for name, (entry,) in plain.items():
        if (match := _CHANNEL.match(name)) is None:
            return plain
        channels.setdefault(match["case"], {})[int(match["channel"])] = entry
    counted = all(sorted(found) == list(range(len(found))) for found in channels.values())
    if by_channel is None:
        by_channel = not (label_names & set(plain)) and (bool(label_names & set(channels)) or len(channels) > 1)
    if not (by_channel and counted):
        return plain
    return {case: [found[number] for number in sorted(found)] for case, found in channels.items()}


def make_cases(
    images: dict[str, list[Path]],
    labels: dict[str, Path],
    references: dict[str, Path],
    role_without_label: Role = "unlabelled",
) -> list[Case]:
    """Cases in the order of their names; a reference counts only where there is no label.

    Raises:
        CohortError: Where two names would become one case id.
    """
    cases: list[Case] = []
    taken: dict[str, str] = {}
    for name, files in sorted(images.items()):
        case_id = _as_id(name)
        if case_id.casefold() in taken:
            raise CohortError(
                f"'{name}' and '{taken[case_id.casefold()]}' would both be case '{case_id}'.", remedy="rename one."
            )
        taken[case_id.casefold()] = name
        label = labels.get(name)
        reference = references.get(name) if label is None else None
        cases.append(
            Case(
                id=case_id,
                role=role_without_label if label is None else "labelled",
                images=tuple(files),
                label=label,
                reference=reference,
            )
        )
    return cases


def _as_id(name: str) -> str:
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("._-")[:64].rstrip(".")
    return cleaned if is_safe_id(cleaned) else f"case-{cleaned}"[:64].rstrip("._-")


def first_dicom(folder: Path) -> Path | None:
    """A DICOM file among the first files of a folder, if there is one."""
    from pydicom.misc import is_dicom

    files = sorted(one for one in folder.iterdir() if one.is_file() and not one.name.startswith("."))
    return next((one for one in files[:8] if is_dicom(one)), None)


def is_series(path: Path) -> bool:
    """Whether this is a folder of DICOM files."""
    return path.is_dir() and first_dicom(path) is not None
