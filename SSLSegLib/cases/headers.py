"""What a file says of itself, read before its voxels: kind of voxels, grid, and whether it can be whole.

ITK believes any size that a header declares; whether it can be true is looked at here before memory is asked for.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import psutil
import SimpleITK

from SSLSegLib.cases.dicom import series_files
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.nifti import GREATEST_DEFLATE_RATIO, is_nifti, refuse_short_nifti
from SSLSegLib.cases.textheader import refuse_strange_text_header
from SSLSegLib.errors import CaseError

__all__ = ["ENDINGS", "ImageHeader", "has_known_ending", "read_header", "unreadable"]

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
_FLOATS = {"32-bit float", "64-bit float"}


@dataclass(frozen=True, eq=False)
class ImageHeader:
    """A header. ``size`` is in file order (i, j, k, ...); ``files`` are several for a DICOM series."""

    files: tuple[Path, ...]
    size: tuple[int, ...]
    components: int
    voxel_type: str
    metadata: dict[str, str]
    geometry: Geometry | None  # None where the image is not three-dimensional

    @property
    def is_float(self) -> bool:
        """Whether voxels are stored or scaled as floating point numbers."""
        return any(kind in self.voxel_type for kind in _FLOATS)

    @property
    def is_colour(self) -> bool:
        """Whether this looks like a colour picture: three or four bytes a voxel."""
        return self.components in (3, 4) and "8-bit unsigned" in self.voxel_type

    @property
    def voxels(self) -> int:
        """How many numbers the image holds."""
        return math.prod(self.size) * self.components


def has_known_ending(path: Path) -> bool:
    """Whether the name ends like a file that can be read."""
    return path.name.lower().endswith(ENDINGS)


def read_header(path: Path, *, case_id: str | None = None) -> ImageHeader:
    """Read the header of an image or label file, or of a DICOM series folder.

    Raises:
        CaseError: Where the file is missing, of an unknown kind, damaged or too short, is not three-dimensional, or
            would not fit into memory.
    """
    path = Path(path)
    if not os.path.exists(path):
        raise CaseError(f"There is no file {path}.", case_id=case_id, remedy="correct the path in cohort.json.")
    if not path.is_dir() and not path.is_file():
        raise CaseError(f"{path} is neither a file nor a folder.", case_id=case_id, remedy="name a real file.")
    files = series_files(path, case_id=case_id) if path.is_dir() else (path,)
    if not path.is_dir() and not has_known_ending(path):
        raise CaseError(
            f"{path.name} is of no kind that can be read.",
            case_id=case_id,
            remedy=f"use one of {', '.join(ENDINGS)}, or the folder of a DICOM series.",
        )
    if is_nifti(path):
        refuse_short_nifti(path, case_id=case_id)
    elif not path.is_dir():
        refuse_strange_text_header(path, case_id=case_id)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(files[0]))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise unreadable(path, error, case_id) from None
    size = tuple(reader.GetSize())
    while len(size) > 3 and size[-1] == 1:  # a fourth dimension of one is no time series
        size = size[:-1]
    if len(files) > 1:
        size = (*size[:2], len(files))
    header = ImageHeader(
        files=files,
        size=size,
        components=reader.GetNumberOfComponents(),
        voxel_type=SimpleITK.GetPixelIDValueAsString(reader.GetPixelID()),
        metadata={key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys() if _is_text(key)},
        geometry=_geometry(reader, path, case_id)
        if len(files) == 1 and reader.GetDimension() == len(size) == 3
        else None,
    )
    _refuse_other_dimensions(header, path, case_id)
    _refuse_too_large(header, path, case_id)
    return header


def _is_text(key: str) -> bool:
    """Whether a name in a header is text; of bytes that are none ITK makes names that it cannot look up itself."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def unreadable(path: Path, error: Exception, case_id: str | None) -> CaseError:
    """ITK's message in a sentence."""
    said = " ".join(str(error).split("ERROR: ")[-1].split())[:200]
    if "orthonormal" in str(error):
        return CaseError(
            f"{path.name} has a sheared coordinate system, which image formats other than NIfTI cannot express.",
            case_id=case_id,
            remedy="resample it onto a straight grid (for example by opening and hardening it in 3D Slicer).",
        )
    return CaseError(
        f"{path.name} cannot be read: {said}.",
        case_id=case_id,
        remedy="check that the file is whole and opens in 3D Slicer; copy or download it again otherwise.",
    )


def _geometry(reader: SimpleITK.ImageFileReader, path: Path, case_id: str | None) -> Geometry:
    try:
        return Geometry.from_sitk(reader)
    except ValueError as error:
        raise CaseError(
            f"{path.name} has no usable position in space: {error}", case_id=case_id, remedy="correct its header."
        ) from None


def _refuse_other_dimensions(header: ImageHeader, path: Path, case_id: str | None) -> None:
    if len(header.size) == 3:
        return
    sizes = " x ".join(str(size) for size in header.size)
    if len(header.size) < 3:
        remedy = "give a volume; a single slice must be stored as a volume of one slice."
    else:
        remedy = "split it into one three-dimensional file per channel or time point."
    raise CaseError(
        f"{path.name} has {len(header.size)} dimensions ({sizes}); a volume has three.", case_id=case_id, remedy=remedy
    )


def _refuse_too_large(header: ImageHeader, path: Path, case_id: str | None) -> None:
    on_disk = sum(file.stat().st_size for file in header.files)
    bits = next((bits for bits in (64, 32, 16) if f"{bits}-bit" in header.voxel_type), 8)
    declared = header.voxels * bits // 8
    attached = path.name.lower().endswith((".nhdr", ".mhd"))  # voxels lie in another file
    if not attached and not path.is_dir() and declared > on_disk * GREATEST_DEFLATE_RATIO:
        raise CaseError(
            f"{path.name} declares {declared / 1e9:.3g} GB of voxels but is a file of {on_disk} bytes; it is damaged.",
            case_id=case_id,
            remedy="copy or download the file again.",
        )
    needed, free = declared + 4 * header.voxels, psutil.virtual_memory().available
    if needed > free:
        raise CaseError(
            f"{path.name} needs {needed / 1e9:.3g} GB of memory to be read; {free / 1e9:.3g} GB are free.",
            case_id=case_id,
            remedy="crop or resample the volume, or use a machine with more memory.",
        )
