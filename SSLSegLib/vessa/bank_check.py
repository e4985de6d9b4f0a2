"""Whether a template bank is whole, by its list, its features and both ends of each picture: quick, before any run."""

from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from SSLSegLib.errors import CohortError
from SSLSegLib.vessa.bank_files import (
    BANK,
    BankRecord,
    Template,
    is_vacant,
    mask_paths,
    picture_path,
    read_features,
    read_record,
    unreadable,
)

__all__ = ["BankCheck", "check_bank", "require_whole"]

_START, _HEADER = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", 24
_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_SAID = 3  # templates that a sentence names


class BankCheck(NamedTuple):
    """What a bank holds, and what of it cannot be used.

    Args:
        record: Its list.
        damaged: Template -> what is wrong with one of its files.
    """

    record: BankRecord
    damaged: dict[str, str]

    def problem(self) -> str:
        """What is wrong, in one sentence; empty where nothing is."""
        if not self.damaged:
            return ""
        first = next(iter(self.damaged.values()))
        if len(self.damaged) == 1:
            return f"One of the {len(self.record.templates)} templates of the bank is damaged: {first}."
        return f"{len(self.damaged)} of the {len(self.record.templates)} templates of the bank are damaged: {first}."


def check_bank(folder: Path) -> BankCheck:
    """Look at the list, the features and, of each picture and mask, its name, size in pixels, beginning and end.

    No picture is decoded: what has changed in the middle of one is found when it is read.

    Raises:
        CohortError: There is no bank, or its list or features are damaged, so that none of its templates can be used.
    """
    folder = Path(folder)
    if not (folder / BANK).is_file() and not is_vacant(folder):
        raise CohortError(
            f"{folder} holds no template bank: {BANK} is missing.",
            remedy="Name the folder of a bank, or an empty one and make it with "
            "`python -m SSLSegLib vessa bank COHORT --out FOLDER`.",
        )
    record = read_record(folder)
    try:
        read_features(folder, record)
    except (OSError, ValueError, ValidationError) as error:
        raise unreadable(folder, error) from error
    found = {each.id: _damage(folder, each) for each in record.templates}
    return BankCheck(record, {name: problem for name, problem in found.items() if problem})


def require_whole(folder: Path) -> BankRecord:
    """Refuse a bank that a run would fail on, before any work. Returns its list.

    Raises:
        CohortError: There is no bank, or it is damaged: what, and the way out.
    """
    check = check_bank(folder)
    if check.damaged:
        names = list(check.damaged)
        shown = ", ".join(names[:_SAID]) + (" …" if len(names) > _SAID else "")
        raise CohortError(
            f"{check.problem()} ({folder})",
            remedy=f"Restore the folder, or take them out ({shown}): "
            f'`python -m SSLSegLib vessa bank "{folder}" --remove-damaged`.',
        )
    return check.record


def _damage(folder: Path, template: Template) -> str:
    """What is wrong with the first bad file of a template, or nothing."""
    size = None
    for path in (picture_path(folder, template), *mask_paths(folder, template).values()):
        name = path.relative_to(folder).as_posix()
        try:
            of_this = _png_size(path)
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        if of_this is None:
            return f"{name} is no whole picture"
        if size is not None and of_this != size:
            return f"{name} is not of the size of its picture"
        size = of_this
    return ""


def _png_size(path: Path) -> bytes | None:
    """Width and height as they stand in a PNG file; None where its beginning or its end is not a PNG's."""
    with open(path, "rb") as file:
        start = file.read(_HEADER)
        length = file.seek(0, 2)
        file.seek(max(length - len(_END), 0))
        if not start.startswith(_START) or len(start) < _HEADER or file.read() != _END:
            return None
    return start[len(_START) :]
