"""Images and labels from files: NIfTI, NRRD, MetaImage, ``.seg.nrrd`` with named segments, DICOM series."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.headers import ImageHeader, read_header, unreadable
from SSLSegLib.cases.segments import FileSegment, file_segments
from SSLSegLib.cases.volume import LabelMap, Volume
from SSLSegLib.errors import CaseError

__all__ = [
    "read_geometry",
    "read_image",
    "read_label",
    "read_label_file",
    "read_label_on",
    "read_volume",
    "refuse_no_scan",
    "resampled",
]


def read_volume(cohort: Cohort, case: Case) -> Volume:
    """Read all channels of a case.

    Returns:
        float32 (C, K, J, I) in the grid of the first channel.

    Raises:
        CaseError: See :func:`read_image`.
    """
    return read_image(cohort.image_paths(case), case_id=case.id)


def read_geometry(cohort: Cohort, case: Case) -> Geometry:
    """The grid of a case's image without reading voxels, where the format allows.

    Raises:
        CaseError: Where the file is missing or damaged.
    """
    path = cohort.image_paths(case)[0]
    header = read_header(path, case_id=case.id)
    return header.geometry or Geometry.from_sitk(_voxels(header, path, case.id))


def read_image(paths: Path | str | Sequence[Path | str], *, case_id: str | None = None) -> Volume:
    """Read an image: one file (or DICOM series folder) with one or several channels, or one file a channel.

    Returns:
        float32 (C, K, J, I), in the units of the file (CT: Hounsfield units).

    Raises:
        CaseError: Where a file is missing, damaged, not three-dimensional, a colour picture, or its grid is not that
            of the first channel.
    """
    names = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    channels: list[np.ndarray] = []
    geometry: Geometry | None = None
    for path in names:
        header = read_header(path, case_id=case_id)
        refuse_no_scan(header, path, case_id=case_id)
        image = _voxels(header, path, case_id)
        here = Geometry.from_sitk(image)
        if geometry is not None and not here.matches(geometry):
            raise CaseError(
                f"Channel {path.name} lies in another grid than {names[0].name}: {here.difference(geometry)}.",
                case_id=case_id,
                remedy="resample the channels onto one grid.",
            )
        geometry = geometry or here
        array = SimpleITK.GetArrayViewFromImage(image)
        channels += [array] if header.components == 1 else [array[..., c] for c in range(header.components)]
        channels[-header.components :] = [
            np.array(channel, dtype=np.float32, order="C") for channel in channels[-header.components :]
        ]
    if geometry is None:
        raise CaseError("No image file is named.", case_id=case_id, remedy="name one in cohort.json.")
    return Volume(channels[0][None] if len(channels) == 1 else np.stack(channels), geometry)


def read_label(
    cohort: Cohort,
    case: Case,
    which: Literal["label", "reference"] = "label",
    *,
    resample: bool | None = None,
) -> LabelMap:
    """Read what is known about a case, in the grid of its image.

    Args:
        cohort: The cohort.
        case: The case.
        which: ``label`` is what the method may see, ``reference`` only scores.
        resample: Put a label of another grid onto the image's by nearest neighbour; as the cohort says by default.

    Returns:
        uint8 (K, J, I) in exactly the grid of the case's image.

    Raises:
        CaseError: Where there is none, see :func:`read_label_file`, or where it lies in another grid.
    """
    return read_label_on(cohort, case, read_geometry(cohort, case), which, resample=resample)


def read_label_on(
    cohort: Cohort,
    case: Case,
    grid: Geometry,
    which: Literal["label", "reference"] = "label",
    *,
    resample: bool | None = None,
) -> LabelMap:
    """:func:`read_label` where the grid of the case's image is known already."""
    path = cohort.label_path(case, which)
    if path is None:
        raise CaseError(f"The case has no {which}.", case_id=case.id, remedy=f"name a {which} file in cohort.json.")
    label = read_label_file(path, cohort.classes, case_id=case.id)
    if label.geometry.matches(grid):
        return LabelMap(label.array, grid)
    if _is_segmentation(path) and (offset := label.geometry.offset_in(grid)) is not None:
        return _placed(label, offset, grid, path, case.id)  # 3D Slicer may store a crop of the grid
    if cohort.resample_labels if resample is None else resample:
        return resampled(label, grid)
    raise CaseError(
        f"The {which} {path.name} lies in another grid than the image: {label.geometry.difference(grid)}.",
        case_id=case.id,
        remedy="give the label of this image, or have it resampled by nearest neighbour: by --resample-labels on the "
        "command line, in 3D Slicer by choosing it as the case's segmentation.",
    )


def read_label_file(path: Path | str, classes: Sequence[SegmentClass], *, case_id: str | None = None) -> LabelMap:
    """Read a label file in its own grid.

    Label maps hold the values of the classes; the segments of a ``.seg.nrrd`` file are matched to classes by name
    (upper and lower case alike) and get their values.

    Raises:
        CaseError: Where the file is missing or damaged, holds fractions or unknown values or segments, or where
            segments overlap.
    """
    path = Path(path)
    header = read_header(path, case_id=case_id)
    if header.is_float:
        raise CaseError(
            f"The label {path.name} is stored as {header.voxel_type}s; a label map holds whole numbers.",
            case_id=case_id,
            remedy="save it as an integer image (3D Slicer: Cast Scalar Volume); a probability map is not a label.",
        )
    segments = file_segments(header.metadata) if _is_segmentation(path) else []
    if header.components > 1 and not segments:
        raise CaseError(
            f"The label {path.name} has {header.components} values a voxel; a label map has one.",
            case_id=case_id,
            remedy="save it as a label map with one value per class, or as .seg.nrrd with named segments.",
        )
    image = _voxels(header, path, case_id)
    array = SimpleITK.GetArrayViewFromImage(image)
    if segments:
        labels = _from_segments(array, segments, classes, path, case_id)
    else:
        labels = _from_values(array, classes, path, case_id)
    return LabelMap(labels, Geometry.from_sitk(image))


def refuse_no_scan(header: ImageHeader, path: Path, *, case_id: str | None = None) -> None:
    """Refuse colour pictures and complex data by their header.

    Raises:
        CaseError: Saying what it is.
    """
    if header.is_colour:
        raise CaseError(
            f"{path.name} is a colour image ({header.components} bytes a voxel), not a scan.",
            case_id=case_id,
            remedy="give the grey-level scan; several channels are given as one file a channel.",
        )
    if "complex" in header.voxel_type:
        raise CaseError(f"{path.name} holds complex numbers.", case_id=case_id, remedy="give the magnitude image.")


def resampled(label: LabelMap, grid: Geometry) -> LabelMap:
    """A label map on another grid by nearest neighbour, background outside."""
    image = SimpleITK.Resample(
        label.geometry.to_sitk(label.array),
        grid.to_sitk(np.zeros(grid.shape, np.uint8)),
        SimpleITK.Transform(3, SimpleITK.sitkIdentity),
        SimpleITK.sitkNearestNeighbor,
        0,
    )
    return LabelMap(SimpleITK.GetArrayFromImage(image), grid)


def _is_segmentation(path: Path) -> bool:
    return path.name.lower().endswith(".seg.nrrd")


def _voxels(header: ImageHeader, path: Path, case_id: str | None) -> SimpleITK.Image:
    try:
        if len(header.files) > 1:
            image = SimpleITK.ReadImage([str(file) for file in header.files])
        else:
            image = SimpleITK.ReadImage(str(header.files[0]))
    except RuntimeError as error:
        raise unreadable(path, error, case_id) from None
    while image.GetDimension() > 3:  # trailing dimensions of one, as the header has shown
        image = image[(slice(None),) * (image.GetDimension() - 1) + (0,)]
    return image


def _from_values(array: np.ndarray, classes: Sequence[SegmentClass], path: Path, case_id: str | None) -> np.ndarray:
    known = {0, *(segment.value for segment in classes)}
    unknown = sorted(int(value) for value in np.unique(array) if int(value) not in known)
    if unknown:
        some = ", ".join(str(value) for value in unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        named = ", ".join(f"{segment.value} = {segment.name}" for segment in classes)
        raise CaseError(
            f"The label {path.name} holds values that are no class: {some} (classes: {named}).",
            case_id=case_id,
            remedy="add the class to cohort.json, or change the label file.",
        )
    return array.astype(np.uint8)


def _from_segments(
    array: np.ndarray,
    segments: Sequence[FileSegment],
    classes: Sequence[SegmentClass],
    path: Path,
    case_id: str | None,
) -> np.ndarray:
    layers = array[..., None] if array.ndim == 3 else array
    values = {segment.name.casefold(): segment.value for segment in classes}
    labels = np.zeros(array.shape[:3], np.uint8)
    taken: dict[str, str] = {}
    for segment in segments:
        if not 0 <= segment.layer < layers.shape[-1]:
            raise CaseError(
                f"{path.name} names a layer that it does not have.",
                case_id=case_id,
                remedy="save it again in 3D Slicer.",
            )
        mask = layers[..., segment.layer] == segment.value
        name = segment.name.strip()
        value = values.get(name.casefold())
        if value is None:
            if not mask.any():
                continue
            raise CaseError(
                f"Segment '{name}' of {path.name} is no class (classes: {', '.join(one.name for one in classes)}).",
                case_id=case_id,
                remedy="rename or remove the segment in 3D Slicer, or add the class to cohort.json.",
            )
        if name.casefold() in taken:
            raise CaseError(
                f"Two segments of {path.name} are called '{name}'.", case_id=case_id, remedy="merge or rename one."
            )
        taken[name.casefold()] = name
        if (overlap := labels[mask]).any():
            other = next(one.name for one in classes if one.value == overlap.max())
            raise CaseError(
                f"Segments '{name}' and '{other}' of {path.name} overlap in {int((overlap > 0).sum())} voxels.",
                case_id=case_id,
                remedy="make them exclude each other (3D Slicer: Segment Editor, masking: allow no overlap).",
            )
        labels[mask] = value
    return labels


def _placed(label: LabelMap, offset: tuple[int, int, int], grid: Geometry, path: Path, case_id: str) -> LabelMap:
    """A crop (or a larger extent) put where it lies in the image's grid."""
    whole = np.zeros(grid.shape, np.uint8)
    into, out_of = [], []
    for start, mine, all_of_it in zip(offset, label.array.shape, grid.shape, strict=True):
        first, last = max(start, 0), min(start + mine, all_of_it)
        into.append(slice(first, max(first, last)))
        out_of.append(slice(first - start, max(first, last) - start))
    whole[tuple(into)] = label.array[tuple(out_of)]
    if np.count_nonzero(whole) != np.count_nonzero(label.array):
        raise CaseError(
            f"Parts of the label {path.name} lie outside the image.",
            case_id=case_id,
            remedy="give the label of this image.",
        )
    return LabelMap(whole, grid)
