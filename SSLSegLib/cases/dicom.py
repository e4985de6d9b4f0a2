"""Which files of a folder make up its DICOM series, in order, and whether they make up a regular volume."""

from pathlib import Path

import numpy as np

from SSLSegLib.errors import CaseError

__all__ = ["series_files"]

_TAGS = ("ImagePositionPatient", "ImageOrientationPatient", "SeriesInstanceUID", "NumberOfFrames")


def series_files(folder: Path, *, case_id: str | None = None) -> tuple[Path, ...]:
    """The slices of the one DICOM series in a folder, ordered along the slice normal.

    Raises:
        CaseError: Where there is no series or more than one, or where slices are missing, double or unevenly spaced:
            a regular grid would place structures wrongly.
    """
    import SimpleITK

    ids = SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not ids:
        raise CaseError(
            f"The folder {folder} holds no DICOM series.", case_id=case_id, remedy="name a file or a series folder."
        )
    if len(ids) > 1:
        raise CaseError(
            f"The folder {folder} holds {len(ids)} DICOM series.",
            case_id=case_id,
            remedy="put each series into a folder of its own and name the one to use.",
        )
    files = tuple(Path(name) for name in SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), ids[0]))
    if len(files) > 1:
        _refuse_uneven_slices(folder, files, case_id)
    return files


def _refuse_uneven_slices(folder: Path, files: tuple[Path, ...], case_id: str | None) -> None:
    import pydicom

    heads = [pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS)) for file in files]
    remedy = "check that the series was copied completely; a time series must be split into its volumes."
    if any("ImagePositionPatient" not in head or "ImageOrientationPatient" not in head for head in heads):
        raise CaseError(f"Slices in {folder} do not say where they lie.", case_id=case_id, remedy=remedy)
    orientation = np.array([head.ImageOrientationPatient for head in heads], dtype=np.float64)
    if np.abs(orientation - orientation[0]).max() > 1e-3:
        raise CaseError(f"Slices in {folder} are turned against each other.", case_id=case_id, remedy=remedy)
    normal = np.cross(orientation[0, :3], orientation[0, 3:])
    along = np.array([head.ImagePositionPatient for head in heads], dtype=np.float64) @ normal
    steps = np.abs(np.diff(along))
    usual = float(np.median(steps))
    if steps.min() < 0.01 * max(usual, 1e-6) or usual < 1e-6:
        raise CaseError(f"Several slices in {folder} lie at the same place.", case_id=case_id, remedy=remedy)
    if np.abs(steps - usual).max() > 0.1 * usual:
        raise CaseError(
            f"Slices in {folder} are unevenly spaced ({steps.min():.3g} to {steps.max():.3g} mm); some may be missing.",
            case_id=case_id,
            remedy=remedy,
        )
