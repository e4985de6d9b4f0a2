"""A first ``cohort.json`` from a folder as people have them: plain folders, an nnU-Net data set, DICOM series."""

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.cohort import Case, Cohort, Role, Window, is_safe_id
from SSLSegLib.cases.headers import ENDINGS, has_known_ending, read_header, unreadable
from SSLSegLib.cases.segments import file_segments
from SSLSegLib.errors import CohortError

__all__ = ["DEFAULT_CT_WINDOW", "discover_cohort"]

DEFAULT_CT_WINDOW = Window(level=40, width=400)  # soft tissue

_CHANNEL = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")
_EXPECTED = "expected images/ (and labels/), an nnU-Net data set (dataset.json, imagesTr/), or DICOM series folders"


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
        cases = _cases({one.name: [one] for one in _distinct(listed)}, _labels_of(base), {})
    elif (base / "imagesTr").is_dir():
        told = _read_dataset_json(base)
        cases = _nnunet_cases(base)
    elif (base / "images").is_dir():
        references = _named_files(base / "references")
        cases = _cases(_grouped(base / "images", set(_labels_of(base)) | set(references)), _labels_of(base), references)
    else:
        series = [one for one in _folders_below(base) if _is_series(one)]
        cases = _cases({one.name: [one] for one in _distinct(series)}, _labels_of(base), {})
    if not cases:
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


# --- files to cases ------------------------------------------------------------------------------------------------


def _stem(path: Path) -> str:
    """A file's name without its ending; of ``.seg.nrrd`` both."""
    lowered = path.name.lower()
    for ending in (".seg.nrrd", *ENDINGS):
        if lowered.endswith(ending):
            return path.name[: -len(ending)]
    return path.name


def _entries(folder: Path) -> list[Path]:
    """Images in a folder: files of a known kind and DICOM series folders, in the order of their names."""
    if not folder.is_dir():
        return []
    found = (one for one in folder.iterdir() if not one.name.startswith("."))
    return sorted(one for one in found if (has_known_ending(one) if one.is_file() else _is_series(one)))


def _named_files(folder: Path) -> dict[str, Path]:
    files = [one for one in _entries(folder) if one.is_file()]
    named = {_stem(file): file for file in files}
    if len(named) < len(files):
        twice = next(file for file in files if named[_stem(file)] != file)
        raise CohortError(f"Several files in {folder} are called '{_stem(twice)}'.", remedy="remove all but one.")
    return named


def _labels_of(base: Path) -> dict[str, Path]:
    return _named_files(base / "labels")


def _grouped(folder: Path, label_names: set[str], *, by_channel: bool | None = None) -> dict[str, list[Path]]:
    """Case names and their channels.

    ``NAME_0000`` is a channel only where every name is one, channels count from 0, and labels are named without it:
    ``scan_0001``, ``scan_0002`` may as well be numbered patients.
    """
    entries = _entries(folder)
    plain: dict[str, list[Path]] = {}
    for entry in entries:
        plain.setdefault(_stem(entry) if entry.is_file() else entry.name, []).append(entry)
    for case, files in plain.items():
        if len(files) > 1:
            raise CohortError(f"Several images in {folder} are called '{case}'.", remedy="remove all but one.")
    channels: dict[str, dict[int, Path]] = {}
    for stem, (entry,) in plain.items():
        if (match := _CHANNEL.match(stem)) is None:
            return plain
        channels.setdefault(match["case"], {})[int(match["channel"])] = entry
    counted = all(sorted(found) == list(range(len(found))) for found in channels.values())
    if by_channel is None:
        by_channel = not (label_names & set(plain)) and (bool(label_names & set(channels)) or len(channels) > 1)
    if not (by_channel and counted):
        return plain
    return {case: [found[number] for number in sorted(found)] for case, found in channels.items()}


def _cases(
    images: dict[str, list[Path]],
    labels: dict[str, Path],
    references: dict[str, Path],
    role_without_label: Role = "unlabelled",
) -> list[Case]:
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


# --- nnU-Net -------------------------------------------------------------------------------------------------------


def _nnunet_cases(base: Path) -> list[Case]:
    labels, references = _named_files(base / "labelsTr"), _named_files(base / "labelsTs")
    images = {
        part: _grouped(base / part, set(known), by_channel=True if _has_channels(base / part) else None)
        for part, known in (("imagesTr", labels), ("imagesTs", references))
    }
    training = _cases(images["imagesTr"], labels, {})
    some_unlabelled = any(case.role == "unlabelled" for case in training)
    rest = _cases(images["imagesTs"], {}, references, "test" if some_unlabelled else "unlabelled")
    both = {case.id.casefold() for case in training} & {case.id.casefold() for case in rest}
    if both:
        raise CohortError(f"Case '{min(both)}' is in imagesTr and in imagesTs.", remedy="rename one of them.")
    return training + rest


def _has_channels(folder: Path) -> bool:
    return any(_stem(one).endswith("_0000") for one in _entries(folder))


def _read_dataset_json(base: Path) -> dict[str, Any]:
    path = base / "dataset.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
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


# --- DICOM and classes ---------------------------------------------------------------------------------------------


def _folders_below(base: Path) -> Iterable[Path]:
    for folder, below, _ in os.walk(base):
        below[:] = sorted(one for one in below if not one.startswith(".") and Path(folder, one) != base / "labels")
        if Path(folder) != base:
            yield Path(folder)


def _first_dicom(folder: Path) -> Path | None:
    from pydicom.misc import is_dicom

    files = sorted(one for one in folder.iterdir() if one.is_file() and not one.name.startswith("."))
    return next((one for one in files[:8] if is_dicom(one)), None)


def _is_series(path: Path) -> bool:
    return path.is_dir() and _first_dicom(path) is not None


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
    if not path.is_dir() or (first := _first_dicom(path)) is None:
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
