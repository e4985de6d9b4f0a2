"""A first ``cohort.json`` from a folder as people have them: plain folders, an nnU-Net data set, DICOM series."""

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.cohort import Case, Cohort, Window
from SSLSegLib.cases.headers import read_header, unreadable
from SSLSegLib.cases.layout import entries, first_dicom, grouped, is_series, make_cases, named_files, stem
from SSLSegLib.cases.segments import file_segments
from SSLSegLib.errors import CohortError
from SSLSegLib.files import read_json

__all__ = ["DEFAULT_CT_WINDOW", "discover_cohort"]

DEFAULT_CT_WINDOW = Window(level=40, width=400)  # soft tissue

_EXPECTED = "expected images/ (and labels/), an nnU-Net data set (dataset.json, imagesTr/), or DICOM series folders"

_PARTS = ("images", "labels", "references", "imagesTr", "imagesTs", "labelsTr", "labelsTs")


def discover_cohort(
    folder: Path | str | Sequence[Path | str],
    *,
    name: str | None = None,
    modality: str | None = None,
    window: Window | None = None,
    classes: Sequence[SegmentClass] | None = None,
) -> Cohort:
    """Describe what lies in a folder; nothing is written (:meth:`Cohort.save` does).

    - ``images/`` with ``labels/`` (and ``references/``): files of one name belong together; an image is a file, a
      DICOM series folder, or files ``NAME_0000``, ``NAME_0001``, ... (one a channel). Images without a label are
      unlabelled.
    - nnU-Net raw data set: classes and channels from ``dataset.json``. Images of ``imagesTr`` without a label are
      unlabelled; those of ``imagesTs`` are test cases, or the unlabelled ones where there would be none. Labels of
      ``labelsTs`` only score.
    - DICOM series folders, given as a list or lying in the folder, with ``labels/`` beside them.

    Args:
        folder: The folder, or a list of DICOM series folders.
        name: Of the cohort; the folder's by default.
        modality: "MR", "CT", ...; by default what ``dataset.json`` or DICOM says, else "MR".
        window: The CT window; soft tissue by default.
        classes: What is segmented; by default what ``dataset.json`` says, else the values (or the names of segments)
            that the label files hold, whose names are then worth correcting.

    Raises:
        CohortError: Where the folder is of no known layout, holds no images, names collide, or nothing says which
            classes there are.
        CaseError: Where a label file cannot be read.
    """
    listed = [] if isinstance(folder, str | Path) else [Path(os.path.abspath(one)) for one in folder]
    if not isinstance(folder, str | Path):
        if not listed:
            raise CohortError("No DICOM series folder is named.")
        base = Path(os.path.commonpath(listed)) if len(listed) > 1 else listed[0].parent
    else:
        base = Path(os.path.abspath(folder))
    if not base.is_dir():
        raise CohortError(f"There is no folder {base}.", remedy="correct the path.")

    told: dict[str, Any] = {}
    if listed:
        cases = make_cases({one.name: [one] for one in _distinct(listed)}, _labels_of(base), {})
    elif (base / "imagesTr").is_dir():
        told = _read_dataset_json(base)
        cases = _nnunet_cases(base)
    elif (base / "images").is_dir():
        references = named_files(base / "references")
        cases = make_cases(
            grouped(base / "images", set(_labels_of(base)) | set(references)), _labels_of(base), references
        )
    else:
        series = [one for one in _folders_below(base) if is_series(one)]
        cases = make_cases({one.name: [one] for one in _distinct(series)}, _labels_of(base), {})
    if not cases:
        if base.name in _PARTS:
            raise CohortError(f"{base} is one folder of a data set.", remedy=f"choose {base.parent}, the folder above.")
        raise CohortError(f"No images were found in {base}.", remedy=f"{_EXPECTED}.")

    modality = modality or told.get("modality") or _dicom_modality(Path(cases[0].images[0])) or "MR"
    segments = tuple(classes or told.get("classes") or _classes_in(cases))
    cohort = Cohort(
        name=(name or told.get("name") or base.name or "cohort")[:128],
        modality=modality,
        window=window or (DEFAULT_CT_WINDOW if modality == "CT" else None),
        classes=segments,
        cases=tuple(cases),
    )
    return cohort.relative_to(base)


# --- nnU-Net -------------------------------------------------------------------------------------------------------


def _nnunet_cases(base: Path) -> list[Case]:
    labels, references = named_files(base / "labelsTr"), named_files(base / "labelsTs")
    images = {
        part: grouped(base / part, set(known), by_channel=True if _has_channels(base / part) else None)
        for part, known in (("imagesTr", labels), ("imagesTs", references))
    }
    training = make_cases(images["imagesTr"], labels, {})
    some_unlabelled = any(case.role == "unlabelled" for case in training)
    rest = make_cases(images["imagesTs"], {}, references, "test" if some_unlabelled else "unlabelled")
    both = {case.id.casefold() for case in training} & {case.id.casefold() for case in rest}
    if both:
        raise CohortError(f"Case '{min(both)}' is in imagesTr and in imagesTs.", remedy="rename one of them.")
    return training + rest


def _has_channels(folder: Path) -> bool:
    return any(stem(one).endswith("_0000") for one in entries(folder))


def _read_dataset_json(base: Path) -> dict[str, Any]:
    path = base / "dataset.json"
    try:
        content = read_json(path)
        labels = content["labels"]
        channels = content.get("channel_names", content.get("modality", {}))
        pairs = [
            (name, value) if isinstance(value, int | list) else (value, int(name)) for name, value in labels.items()
        ]
        first = str(next(iter(channels.values()), "")).upper()
    except FileNotFoundError:
        raise CohortError(f"{base} has imagesTr but no dataset.json.", remedy="add it: it names the classes.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CohortError(f"{path} is not nnU-Net's: {error!r}.", remedy="correct the file.") from None
    if any(isinstance(value, list) for _, value in pairs):
        raise CohortError(
            f"{path} has region-based classes, which overlap.", remedy="write one value per class, without regions."
        )
    ignored = ("background", "ignore")
    classes = [SegmentClass(value=value, name=str(name)) for name, value in pairs if value and name not in ignored]
    return {
        "classes": classes,
        "name": str(content.get("name") or base.name),
        "modality": "CT" if first == "CT" else "MR" if channels else None,
    }


def _labels_of(base: Path) -> dict[str, Path]:
    return named_files(base / "labels")


# --- DICOM and classes ---------------------------------------------------------------------------------------------


def _folders_below(base: Path) -> Iterable[Path]:
    for folder, below, _ in os.walk(base):
        below[:] = sorted(one for one in below if not one.startswith(".") and Path(folder, one) != base / "labels")
        if Path(folder) != base:
            yield Path(folder)


def _distinct(folders: Sequence[Path]) -> list[Path]:
    names: dict[str, Path] = {}
    for folder in folders:
        if folder.name in names:
            raise CohortError(
                f"Two series folders are called '{folder.name}' ({names[folder.name]} and {folder}).",
                remedy="rename one; the folder's name becomes the case's.",
            )
        names[folder.name] = folder
    return list(names.values())


def _dicom_modality(path: Path) -> str | None:
    if not path.is_dir() or (first := first_dicom(path)) is None:
        return None
    import pydicom

    modality = str(pydicom.dcmread(first, stop_before_pixels=True, specific_tags=["Modality"]).get("Modality", ""))
    return modality if re.fullmatch(r"[A-Z][A-Z0-9]{0,15}", modality) else None


def _classes_in(cases: Sequence[Case]) -> list[SegmentClass]:
    """Classes by what the labels of labelled cases hold."""
    import SimpleITK

    names: dict[str, str] = {}
    values: set[int] = set()
    for case in cases:
        if case.role != "labelled":
            continue
        path = Path(case.label)
        header = read_header(path, case_id=case.id)
        if path.name.lower().endswith(".seg.nrrd") and (segments := file_segments(header.metadata)):
            for segment in segments:
                names.setdefault(segment.name.strip().casefold(), segment.name.strip())
        else:
            try:
                array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
            except RuntimeError as error:
                raise unreadable(path, error, case.id) from None
            values |= set(np.unique(array).tolist()) - {0}
    if names:
        return [SegmentClass(value=value, name=name) for value, name in enumerate(names.values(), start=1)]
    if not values:
        raise CohortError(
            "Nothing says which classes there are: no labels were found.",
            remedy="put label files of the images' names into labels/.",
        )
    if unfit := sorted(value for value in values if value != int(value) or not 1 <= value <= 255):
        raise CohortError(
            f"Label files hold {unfit[0]:g}, which is no class value (whole numbers from 1 to 255).",
            remedy="change the labels, or name the classes that are meant.",
        )
    return [SegmentClass(value=int(value), name=f"class {int(value)}") for value in sorted(values)]
