"""Labels and maps to files, in exactly the grid of the image they belong to."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.nifti import is_nifti, refuse_short_nifti
from SSLSegLib.cases.segments import segment_fields
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.errors import CaseError
from SSLSegLib.files import atomic_path

__all__ = ["write_label", "write_scalar"]

_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")


def write_label(
    path: Path | str,
    label: LabelMap,
    classes: Sequence[SegmentClass],
    *,
    reference: Geometry,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Write a label map; with ``.seg.nrrd`` as named, coloured and coded segments that 3D Slicer opens.

    Args:
        path: Ends in ``.nii.gz``, ``.nii``, ``.nrrd``, ``.mha`` or ``.seg.nrrd``. Replaced as a whole.
        label: The label map.
        classes: The classes its values stand for.
        reference: The grid of the source image, which the label must have.
        tags: Written on every segment of a ``.seg.nrrd`` file: where the label comes from.

    Raises:
        CaseError: Where the label is not in the grid of its source, holds a value that is no class, or the format
            cannot hold the grid. Nothing is written then.
    """
    if not label.geometry.matches(reference):
        raise CaseError(
            f"{Path(path).name} is not written: it lies in another grid than its image: "
            f"{label.geometry.difference(reference)}."
        )
    unknown = set(np.unique(label.array).tolist()) - {0, *(segment.value for segment in classes)}
    if unknown:
        raise CaseError(f"{Path(path).name} is not written: values {sorted(unknown)} are no class.")
    named = Path(path).name.lower().endswith(".seg.nrrd")
    _write(Path(path), label.array, reference, segment_fields(label.array, classes, tags) if named else {})


def write_scalar(path: Path | str, array: np.ndarray, geometry: Geometry) -> None:
    """Write a (K, J, I) map (probability, uncertainty, image) in its own number type.

    Raises:
        CaseError: Where the array does not fill the grid, or the format cannot hold the grid.
    """
    if array.shape != geometry.shape:
        raise CaseError(f"{Path(path).name} is not written: {array.shape} voxels do not fill {geometry.shape}.")
    _write(Path(path), array, geometry, {})


def _write(path: Path, array: np.ndarray, geometry: Geometry, fields: Mapping[str, str]) -> None:
    if not path.name.lower().endswith(_ENDINGS):
        raise CaseError(f"{path.name}: unknown kind of file.", remedy=f"use one of {', '.join(_ENDINGS)}.")
    image = geometry.to_sitk(np.ascontiguousarray(array))
    for key, text in fields.items():
        image.SetMetaData(key, text)
    packed = not path.name.lower().endswith(".nii")
    with atomic_path(path) as temporary:
        try:
            SimpleITK.WriteImage(image, str(temporary), packed)
            if is_nifti(temporary):  # on a full disk ITK's writer of NIfTI stops in the middle without a word
                refuse_short_nifti(temporary)
            header = SimpleITK.ImageFileReader()
            header.SetFileName(str(temporary))
            header.ReadImageInformation()
            stored = Geometry.from_sitk(header)
        except (RuntimeError, CaseError) as error:
            raise _unwritten(path, array, error) from None
        if not stored.matches(geometry):
            raise CaseError(
                f"{path.name} is not written: this format would move the label ({stored.difference(geometry)}).",
                remedy="use .nrrd or .mha.",
            )


def _unwritten(path: Path, array: np.ndarray, error: Exception) -> CaseError:
    """Why a file was not written whole; a full disk is told by the space that is left, whatever ITK says of it."""
    free = shutil.disk_usage(path.parent).free
    said = " ".join(str(error).split())[-200:].rstrip(".")
    cut_short = any(
        words in said for words in ("too large", "No space", "failed to write", "fail after write", "write gzip data")
    )
    if isinstance(error, CaseError) or cut_short or free < array.nbytes:
        return CaseError(
            f"{path.name} could not be written whole: it takes up to {array.nbytes / 1e6:.3g} MB; "
            f"{free / 1e6:.3g} MB are free at {path.parent}.",
            remedy="make space there (or raise the limit on file sizes) and run again; finished cases are kept.",
        )
    return CaseError(f"{path.name} cannot be written: {said}.")
