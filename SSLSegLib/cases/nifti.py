"""What must be looked at in a NIfTI file's own bytes.

The reader that ITK uses fills up the missing end of a truncated file and turns NaN and infinity into 0, both without a
word. Here the declared size is compared with what is there, and voxels are counted that are no numbers.
"""

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from SSLSegLib.errors import CaseError

__all__ = ["GREATEST_DEFLATE_RATIO", "count_not_finite", "is_nifti", "refuse_short_nifti"]

_FLOATS = {16: "f4", 64: "f8"}  # NIfTI's codes of single and double precision
GREATEST_DEFLATE_RATIO = 1032
"""Of the format; a header that announces more than this times the file lies."""

_COPY_AGAIN = "copy or download the file again."


@dataclass(frozen=True)
class _Head:
    length: int  # bytes of the whole unpacked file
    offset: int  # of the first voxel
    dtype: np.dtype | None  # where voxels are floating point numbers


def is_nifti(path: Path) -> bool:
    """Whether the name is that of a NIfTI file."""
    return path.name.lower().endswith((".nii", ".nii.gz"))


def refuse_short_nifti(path: Path, *, case_id: str | None = None) -> None:
    """Compare the declared voxels with the bytes that are there; unpack the whole stream only where in doubt.

    Raises:
        CaseError: Where the file is no NIfTI file, or shorter than it says.
    """
    head = _head(path, case_id)
    if head.length > path.stat().st_size * (GREATEST_DEFLATE_RATIO if _is_packed(path) else 1):
        length = path.stat().st_size
    elif _is_packed(path):
        with open(path, "rb") as stream:
            stream.seek(-4, 2)
            (unpacked,) = struct.unpack("<I", stream.read(4))
        # Several members, padding, or a cut: only unpacking tells.
        length = head.length if unpacked == head.length % 2**32 else count_not_finite(path, case_id=case_id)[1]
    else:
        length = path.stat().st_size
    if length < head.length:
        raise CaseError(
            f"{path.name} is truncated: {length} bytes where its header announces {head.length}.",
            case_id=case_id,
            remedy=_COPY_AGAIN,
        )


def count_not_finite(path: Path, *, case_id: str | None = None) -> tuple[int, int]:
    """Read the file to the end of its voxels, checking the sums of a packed one and keeping nothing.

    What lies behind the voxels is never unpacked: it may be without end.

    Returns:
        How many voxels are NaN or infinite, and how many bytes of those the header announces are there.

    Raises:
        CaseError: Where it is truncated or damaged.
    """
    head = _head(path, case_id)
    wrong = length = 0
    try:
        with _opened(path) as stream:
            length += len(stream.read(head.offset))
            while block := stream.read(min(1 << 22, head.length - length)):  # a whole number of voxels but at the end
                length += len(block)
                if head.dtype is not None:
                    whole = len(block) // head.dtype.itemsize
                    wrong += whole - int(np.isfinite(np.frombuffer(block, head.dtype, whole)).sum())
            stream.read(1)  # the end of a packed stream is where its sums are compared
    except (EOFError, OSError, zlib.error) as error:
        raise CaseError(
            f"{path.name} is truncated or damaged ({error}).", case_id=case_id, remedy=_COPY_AGAIN
        ) from None
    return wrong, length


def _is_packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _opened(path: Path) -> BinaryIO:
    return gzip.open(path) if _is_packed(path) else open(path, "rb")


def _head(path: Path, case_id: str | None) -> _Head:
    try:
        with _opened(path) as stream:
            head = _parsed(stream.read(540))
    except (EOFError, OSError, zlib.error):
        head = None
    if head is None:
        raise CaseError(f"{path.name} is empty, damaged or no NIfTI file.", case_id=case_id, remedy=_COPY_AGAIN)
    return head


def _parsed(start: bytes) -> _Head | None:
    """The header of a NIfTI-1 or NIfTI-2 file in either byte order, None where these bytes are none."""
    for order in "<>":
        if len(start) >= 348 and struct.unpack_from(order + "i", start)[0] == 348:
            sizes = struct.unpack_from(order + "8h", start, 40)
            kind, bits = struct.unpack_from(order + "2h", start, 70)
            (offset,) = struct.unpack_from(order + "f", start, 108)
        elif len(start) >= 540 and struct.unpack_from(order + "i", start)[0] == 540:
            sizes = struct.unpack_from(order + "8q", start, 16)
            kind, bits = struct.unpack_from(order + "2h", start, 12)
            (offset,) = struct.unpack_from(order + "q", start, 168)
        else:
            continue
        if not 1 <= sizes[0] <= 7 or min(sizes[1 : sizes[0] + 1]) < 1 or bits < 1 or not 0 <= offset < 2**30:
            return None
        count = 1
        for size in sizes[1 : sizes[0] + 1]:
            count *= size
        dtype = np.dtype(order + _FLOATS[kind]) if kind in _FLOATS else None
        return _Head(int(offset) + (count * bits + 7) // 8, int(offset), dtype)
    return None
