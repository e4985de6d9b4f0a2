"""Pseudo-labels as files: one folder per case, valid only when its ``result.json`` says so.

    results/<case id>/
        labels.nii.gz               label values, uint8
        labels.seg.nrrd             the same as named, coloured segments with the provenance in their tags
        probability_<value>.nii.gz  mean probability of each class, float32
        uncertainty.nii.gz          nats, 0..ln 2, float32
        spread.nii.gz               run-to-run standard deviation, float32; only where the method has runs
        result.json                 scores, provenance, geometry, and the SHA-256 of every file; written last

All maps lie in the geometry of the case's image. Floats are rounded to multiples of 2^-16, an error of at most 2^-17
(7.6e-6): the zeros at the end let gzip shrink a left-atrium probability map of 88 x 145 x 174 voxels from 5.4 MB to
1.1 MB, and any reader still sees plain probabilities. ``labels.nii.gz`` was thresholded before rounding.
The same pseudo-label gives the same bytes in every file.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.reading import read_image, read_label_file
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.cases.writing import write_label, write_scalar
from SSLSegLib.errors import CaseError
from SSLSegLib.files import read_json, sha256_of, write_json
from SSLSegLib.pseudolabels.label import LabelScores, PseudoLabel

__all__ = [
    "LABELS",
    "RESULT",
    "SEGMENTS",
    "SPREAD",
    "UNCERTAINTY",
    "ResultRecord",
    "is_complete",
    "list_results",
    "load_pseudo_label",
    "probability_name",
    "provenance_tags",
    "read_result",
    "save_pseudo_label",
]

LABELS = "labels.nii.gz"
SEGMENTS = "labels.seg.nrrd"
UNCERTAINTY = "uncertainty.nii.gz"
SPREAD = "spread.nii.gz"
RESULT = "result.json"

_STEPS = 2.0**16


class ResultRecord(BaseModel):
    """What ``result.json`` holds: everything about a pseudo-label but its voxels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    kind: Literal["pseudo-label"] = "pseudo-label"
    case_id: str
    classes: tuple[SegmentClass, ...] = Field(min_length=1)
    shape: tuple[int, int, int]
    ijk_to_ras: tuple[tuple[float, float, float, float], ...]
    scores: LabelScores
    provenance: dict[str, Any]
    files: dict[str, str]
    """File name to SHA-256."""

    @field_validator("files")
    @classmethod
    def _names_stay_in_the_folder(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            if Path(name).name != name or name in ("", ".", ".."):
                raise ValueError(f"{name!r} is not the name of a file in this folder")
        return files

    @model_validator(mode="after")
    def _is_a_grid_in_space(self) -> Self:
        _ = self.geometry  # ValueError where it is none
        return self

    @property
    def geometry(self) -> Geometry:
        """The image's geometry, to the last bit (NIfTI headers keep single precision only)."""
        return Geometry(self.shape, np.array(self.ijk_to_ras, dtype=np.float64))


def probability_name(segment: SegmentClass) -> str:
    """File name of a class's probability map."""
    return f"probability_{segment.value}.nii.gz"


def save_pseudo_label(folder: Path, label: PseudoLabel, classes: Sequence[SegmentClass]) -> ResultRecord:
    """Write a pseudo-label into its case's result folder.

    Killed in between, the folder holds no ``result.json`` and :func:`is_complete` says no.

    Args:
        folder: ``results/<case id>``; made if missing. An earlier result of the case in it is replaced; a review
            is left alone.
        label: The pseudo-label.
        classes: The cohort's classes, in the order of its probabilities.

    Raises:
        CaseError: If the label does not fit the classes, or a file format cannot hold the geometry.
    """
    folder = Path(folder)
    if label.probability.shape[0] != len(classes):
        raise CaseError(
            f"There are {label.probability.shape[0]} probability maps for {len(classes)} classes.",
            case_id=label.case_id,
            remedy="Save with the classes of the cohort that the label was made for.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT).unlink(missing_ok=True)
    for stale in (SPREAD, *(path.name for path in folder.glob("probability_*.nii.gz"))):
        (folder / stale).unlink(missing_ok=True)

    labels = LabelMap(label.mask, label.geometry)
    write_label(folder / LABELS, labels, classes, reference=label.geometry)
    write_label(folder / SEGMENTS, labels, classes, reference=label.geometry, tags=provenance_tags(label.provenance))
    maps = {probability_name(each): label.probability[index] for index, each in enumerate(classes)}
    maps[UNCERTAINTY] = label.uncertainty
    if label.spread is not None:
        maps[SPREAD] = label.spread
    for name, array in maps.items():
        write_scalar(folder / name, _rounded(array), label.geometry)

    record = ResultRecord(
        case_id=label.case_id,
        classes=tuple(classes),
        shape=label.geometry.shape,
        ijk_to_ras=tuple(tuple(row) for row in label.geometry.ijk_to_ras.tolist()),
        scores=label.scores,
        provenance=label.provenance,
        files={name: sha256_of(folder / name) for name in (LABELS, SEGMENTS, *maps)},
    )
    write_json(folder / RESULT, record.model_dump(mode="json"))
    return record


def read_result(folder: Path) -> ResultRecord:
    """Read ``result.json`` without looking at the other files.

    Raises:
        CaseError: If it is missing, damaged or from a newer version.
    """
    path = Path(folder) / RESULT
    try:
        return ResultRecord.model_validate(read_json(path))
    except FileNotFoundError:
        raise CaseError(
            "There is no finished result.", case_id=path.parent.name, remedy="Run the job again: it resumes."
        ) from None
    except (OSError, ValueError) as error:  # a ValidationError is a ValueError
        raise CaseError(
            f"{RESULT} is damaged or from a newer version.",
            case_id=path.parent.name,
            remedy=f"Delete the folder {path.parent} and run the job again.",
        ) from error


def is_complete(folder: Path, *, thorough: bool = True) -> bool:
    """Whether a folder holds a valid result: ``result.json`` is there and every file matches it.

    Args:
        folder: ``results/<case id>``.
        thorough: Compare checksums; otherwise only look whether the files are there.
    """
    folder = Path(folder)
    try:
        record = read_result(folder)
    except CaseError:
        return False
    return not _mismatches(folder, record, thorough)


def load_pseudo_label(folder: Path) -> PseudoLabel:
    """Read a pseudo-label back; floats differ from what was saved by at most 2^-17.

    Raises:
        CaseError: If the result is unfinished, or a file is missing, changed since, or of another geometry.
    """
    folder = Path(folder)
    record = read_result(folder)
    if wrong := _mismatches(folder, record, thorough=True):
        raise CaseError(
            f"The files of this result are not those that were written: {', '.join(wrong)}.",
            case_id=record.case_id,
            remedy="Run the job again; corrections by hand belong into a file of their own.",
        )
    spread = SPREAD in record.files
    return PseudoLabel(
        case_id=record.case_id,
        probability=np.stack([_read_map(folder / probability_name(each), record) for each in record.classes]),
        mask=_checked(read_label_file(folder / LABELS, record.classes, case_id=record.case_id), record, LABELS).array,
        uncertainty=_read_map(folder / UNCERTAINTY, record),
        spread=_read_map(folder / SPREAD, record) if spread else None,
        geometry=record.geometry,
        scores=record.scores,
        provenance=record.provenance,
    )


def list_results(results: Path) -> dict[str, ResultRecord]:
    """The finished results of a job's ``results`` folder by case id; unfinished folders are passed over."""
    found = {}
    for path in sorted(Path(results).glob(f"*/{RESULT}")):
        record = read_result(path.parent)
        found[record.case_id] = record
    return found


def provenance_tags(provenance: dict[str, Any]) -> dict[str, str]:
    """Provenance as text tags for segments and scene nodes; everything is marked as a pseudo-label."""
    weights = provenance.get("weights") or {}
    tags = {
        "SSLSeg.Kind": "pseudo-label",
        "SSLSeg.Method": provenance.get("method"),
        "SSLSeg.Weights": weights.get("name"),
        "SSLSeg.WeightsSHA256": weights.get("sha256"),
        "SSLSeg.Seed": provenance.get("seed"),
        "SSLSeg.Labelled": " ".join(provenance.get("labelled") or []),
        "SSLSeg.Options": json.dumps(provenance.get("options") or {}, sort_keys=True),
        "SSLSeg.Software": json.dumps(provenance.get("software") or {}, sort_keys=True),
        "SSLSeg.Date": provenance.get("date"),
    }
    return {key: str(value) for key, value in tags.items() if value not in (None, "", "{}")}


def _rounded(array: NDArray[np.floating]) -> NDArray[np.float32]:
    return (np.rint(array * np.float32(_STEPS)) / np.float32(_STEPS)).astype(np.float32)


def _mismatches(folder: Path, record: ResultRecord, thorough: bool) -> list[str]:
    return [
        name
        for name, checksum in record.files.items()
        if not os.path.isfile(folder / name) or (thorough and sha256_of(folder / name) != checksum)
    ]


def _read_map(path: Path, record: ResultRecord) -> NDArray[np.float32]:
    return _checked(read_image(path, case_id=record.case_id), record, path.name).array[0]


def _checked(stored, record: ResultRecord, name: str):
    if not stored.geometry.matches(record.geometry):
        raise CaseError(
            f"{name} is not in the geometry of the image: {stored.geometry.difference(record.geometry)}.",
            case_id=record.case_id,
            remedy="Run the job again.",
        )
    return stored
