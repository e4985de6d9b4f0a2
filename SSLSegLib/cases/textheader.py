"""What must be looked at in an NRRD or MetaImage header before ITK acts on it.

Both kinds are lines of text that may name other files for the voxels and any number of dimensions. ITK opens what they
name and believes what they count; here a header has to be short, its sizes sound, and its voxels beside it.
"""

import os
import re
from pathlib import Path

from SSLSegLib.cases.case import is_absolute
from SSLSegLib.errors import CaseError

__all__ = ["refuse_strange_text_header"]

_LONGEST = 2**20  # bytes; headers with every tag of a large segmentation stay below a tenth of it
_LONGEST_FIELD = 500  # characters; ITK's NRRD reader writes its complaint about a longer one past the end of a buffer
_MOST_DIMENSIONS = 16
_LONGEST_SIDE = 2**31
_DATA_FILE = re.compile(r"(?im)^(?:data ?file:|ElementDataFile\s*=)[ \t]*(.*?)[ \t]*$")
_SIZES = re.compile(r"(?im)^(?:sizes:|DimSize\s*=)(.*)$")
_DIMENSIONS = re.compile(r"(?im)^(?:dimension:|NDims\s*=)[ \t]*(.*?)[ \t]*$")
_COMPONENTS = re.compile(r"(?im)^ElementNumberOfChannels\s*=(.*)$")


def refuse_strange_text_header(path: Path, *, case_id: str | None = None) -> None:
    """Refuse a header whose sizes cannot be, or whose voxels are not in a file of the same folder.

    Raises:
        CaseError: Saying which of it is wrong.
    """
    try:
        with open(path, "rb") as opened:
            start = opened.read(_LONGEST)
    except OSError as error:
        raise CaseError(f"{path.name} cannot be read: {error.strerror}.", case_id=case_id) from None
    if len(start) == _LONGEST and len(_header(start)) == _LONGEST:
        raise _strange(f"has a header of more than {_LONGEST} bytes", path, case_id)
    header = _header(start).decode("latin-1").replace("\r\n", "\n")
    if start.startswith(b"NRRD") and any(len(line) > _LONGEST_FIELD for line in _nrrd_fields(header)):
        raise _strange(f"has a field of more than {_LONGEST_FIELD} characters in its header", path, case_id)
    for pattern, most, least in ((_DIMENSIONS, _MOST_DIMENSIONS, 1), (_COMPONENTS, 2**16, 1)):
        for found in pattern.findall(header):
            if not all(least <= number <= most for number in _whole_numbers(found, path, case_id)):
                raise _strange(f"counts '{found.strip()[:40]}' of something", path, case_id)
    for found in _SIZES.findall(header):
        if not all(1 <= number < _LONGEST_SIDE for number in _whole_numbers(found, path, case_id)):
            raise _strange(f"has the sizes '{found.strip()[:60]}'", path, case_id)
    for named in _DATA_FILE.findall(header):
        if named.upper() != "LOCAL":
            _refuse_elsewhere(path, named, case_id)


def _header(start: bytes) -> bytes:
    """The lines up to where voxels may begin: an empty line (NRRD), or behind the data file's name (MetaImage)."""
    if start.startswith(b"NRRD"):
        return re.split(rb"\r?\n\r?\n", start, maxsplit=1)[0]
    ending = re.search(rb"(?i)ElementDataFile[^\n]*", start)
    return start[: ending.end()] if ending else start


def _nrrd_fields(header: str) -> list[str]:
    """Lines that say how to read the file: no comments, and no ``key:=value``, which may be of any length."""
    return [line for line in header.split("\n") if not line.startswith("#") and line.partition(":")[2][:1] != "="]


def _whole_numbers(text: str, path: Path, case_id: str | None) -> list[int]:
    try:
        return [int(part) for part in text.split()]
    except ValueError:
        raise _strange(f"has '{text.strip()[:40]}' where whole numbers belong", path, case_id) from None


def _refuse_elsewhere(path: Path, named: str, case_id: str | None) -> None:
    """The voxels' file must be a regular file in the header's folder: a header must not make us open any other."""
    if named.upper().startswith("LIST") or "%" in named:
        raise CaseError(
            f"The voxels of {path.name} are spread over several files, which is not read here.",
            case_id=case_id,
            remedy="save the volume as one file in 3D Slicer.",
        )
    inside = not is_absolute(named) and ".." not in Path(named.replace("\\", "/")).parts
    if not inside or not os.path.isfile(path.parent / named):
        raise CaseError(
            f"The voxels of {path.name} are said to lie in '{named[:80]}', which is no file in its folder.",
            case_id=case_id,
            remedy="put both files into one folder, or save the volume as one file in 3D Slicer.",
        )


def _strange(what: str, path: Path, case_id: str | None) -> CaseError:
    return CaseError(
        f"{path.name} {what}; it is damaged or no image.", case_id=case_id, remedy="copy or download the file again."
    )
