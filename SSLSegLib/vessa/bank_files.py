"""A template bank on disk, a folder that the user owns.

::

    bank.json             what each template is, where it came from, and which features it was indexed by
    images/<id>.png       the slice as a picture
    masks/<id>.<n>.png    the mask of its n-th target
    features.npy          float32 (templates, d), unit vectors; features-2.npy after a change, and so on by turns:
                          bank.json says which of them counts, so a change that is cut off changes nothing
"""

import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from SSLSegLib import __version__
from SSLSegLib.cases.case import is_safe_id
from SSLSegLib.errors import CohortError
from SSLSegLib.files import atomic_path, read_json, write_json

__all__ = [
    "BANK",
    "FEATURES",
    "BankContent",
    "BankRecord",
    "Template",
    "is_vacant",
    "mask_paths",
    "picture_path",
    "read_bank",
    "read_features",
    "read_record",
    "refuse_other_files",
    "remove_templates",
    "unreadable",
    "write_bank",
]

BANK = "bank.json"
FEATURES = ("features.npy", "features-2.npy")
_PART = ".part-bank"


class Template(BaseModel):
    """What ``bank.json`` says of one template; see :class:`~SSLSegLib.vessa.slices.LabelledSlice`.

    Args:
        origin: Where its mask came from: ``label`` (drawn by people) or ``accepted`` (a reviewed pseudo-label).
        added: When, ISO 8601.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    dataset: str
    subject: str
    modality: str
    position: float = Field(ge=0, le=1)
    targets: tuple[str, ...] = Field(min_length=1)
    origin: Literal["label", "accepted"] = "label"
    added: str = ""


class BankRecord(BaseModel):
    """``bank.json``: everything but the pictures, masks and features.

    Args:
        features: What the templates were indexed by.
        index: The file of their vectors.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    features: str
    index: Literal["features.npy", "features-2.npy"] = "features.npy"
    software: str
    templates: tuple[Template, ...]


class BankContent(NamedTuple):
    """What the files hold; see :class:`~SSLSegLib.vessa.templates.TemplateBank`."""

    templates: Sequence[Template]
    pictures: Sequence[np.ndarray]
    masks: Sequence[dict[str, np.ndarray]]
    features: np.ndarray
    features_name: str


def is_vacant(folder: Path) -> bool:
    """Whether a bank can be made in a folder: it is not there, or empty but for what an interrupted try has left."""
    folder = Path(folder)
    return not folder.exists() or (folder.is_dir() and all(entry.name == _PART for entry in folder.iterdir()))


def refuse_other_files(folder: Path) -> None:
    """A bank goes into a new or an empty folder, or into one that holds a bank.

    Raises:
        CohortError: The folder holds something else; its ``images/`` are somebody's.
    """
    folder = Path(folder)
    if not (folder / BANK).is_file() and not is_vacant(folder):
        raise CohortError(
            f"{folder} is not empty and holds no template bank.",
            remedy="Choose another folder with --out. Nothing was changed.",
        )


def write_bank(folder: Path, content: BankContent) -> None:
    """Write the folder, or write anew the bank that it holds; a new bank is whole or absent.

    Raises:
        CohortError: The folder holds something else.
    """
    folder = Path(folder)
    refuse_other_files(folder)
    if (folder / BANK).is_file():
        _write_into(folder, content)
        return
    part = folder / _PART  # inside, since the folder may be there already
    shutil.rmtree(part, ignore_errors=True)
    _write_into(part, content)
    for name in ("images", "masks", FEATURES[0], BANK):
        os.replace(part / name, folder / name)
    part.rmdir()


def _write_into(folder: Path, content: BankContent) -> None:
    for template, picture, masks in zip(content.templates, content.pictures, content.masks, strict=True):
        _write_png(picture_path(folder, template), picture)
        for target, path in mask_paths(folder, template).items():
            _write_png(path, masks[target].astype(np.uint8) * 255)
    _write_index(folder, content.templates, content.features, content.features_name)


def _write_index(folder: Path, templates: Sequence[Template], features: np.ndarray, features_name: str) -> None:
    index = FEATURES[1] if _index_in_use(folder) == FEATURES[0] else FEATURES[0]
    with atomic_path(folder / index) as temporary:
        np.save(temporary, features, allow_pickle=False)
    record = BankRecord(
        features=features_name, index=index, software=f"SSLSeg {__version__}", templates=tuple(templates)
    )
    write_json(folder / BANK, record.model_dump(mode="json"))  # from here on the bank is the new one
    for other in FEATURES:
        if other != index:
            (folder / other).unlink(missing_ok=True)


def _index_in_use(folder: Path) -> str | None:
    """The file of vectors that the bank in the folder names, if one can be read there."""
    try:
        return _checked_record(folder).index
    except (OSError, ValueError, ValidationError):
        return None


def read_bank(folder: Path) -> BankContent:
    """Read the folder.

    Raises:
        CohortError: It holds no bank, or files of it are missing or do not fit.
    """
    folder = Path(folder)
    try:
        record = _checked_record(folder)
        pictures = [_read_png(picture_path(folder, each), "RGB") for each in record.templates]
        masks = [
            {target: _read_png(path, "L") > 0 for target, path in mask_paths(folder, each).items()}
            for each in record.templates
        ]
        features = read_features(folder, record)
        for picture, of_it in zip(pictures, masks, strict=True):
            if any(mask.shape != picture.shape[:2] for mask in of_it.values()):
                raise ValueError("a mask is not of the size of its image")
    except (OSError, ValueError, ValidationError) as error:
        raise unreadable(folder, error) from error
    return BankContent(record.templates, pictures, masks, features, record.features)


def read_record(folder: Path) -> BankRecord:
    """What a bank holds, without its pictures, masks and features: quick, for lists.

    Raises:
        CohortError: There is no bank, or it cannot be read.
    """
    try:
        return _checked_record(Path(folder))
    except (OSError, ValueError, ValidationError) as error:
        raise unreadable(Path(folder), error) from error


def read_features(folder: Path, record: BankRecord) -> np.ndarray:
    """The vectors of a bank's templates.

    Raises:
        OSError, ValueError: They are missing, damaged, or not those of the templates.
    """
    name = record.index
    try:
        features = np.load(Path(folder) / name, allow_pickle=False)
    except (EOFError, ValueError) as error:
        raise ValueError(f"{name} is damaged") from error
    if features.ndim != 2 or len(features) != len(record.templates) or features.dtype.kind != "f":
        raise ValueError(f"{name} is not that of its templates")
    if not np.isfinite(features).all():
        raise ValueError(f"{name} holds numbers that are none")
    return np.asarray(features)


def picture_path(folder: Path, template: Template) -> Path:
    """The picture of a template."""
    return Path(folder) / "images" / f"{template.id}.png"


def remove_templates(folder: Path, identifiers: Collection[str]) -> int:
    """Take templates out of a bank on disk, with their pictures and masks. Returns how many are left.

    Pictures are not looked at, so that damaged templates can be taken out too.

    Args:
        folder: The bank's.
        identifiers: Of templates; such as are not there are passed over.

    Raises:
        CohortError: The bank cannot be read, or nothing would be left of it: nothing is changed then.
    """
    folder = Path(folder)
    record = read_record(folder)
    try:
        features = read_features(folder, record)
    except (OSError, ValueError) as error:
        raise unreadable(folder, error) from error
    kept = [index for index, each in enumerate(record.templates) if each.id not in identifiers]
    gone = [each for each in record.templates if each.id in identifiers]
    if not kept:
        raise CohortError(
            "No template would be left in the bank.", remedy="Delete its folder instead, or leave one of them."
        )
    if not gone:
        return len(kept)
    _write_index(folder, [record.templates[index] for index in kept], features[kept], record.features)
    for template in gone:  # afterwards: a picture that no template names does no harm
        for path in (picture_path(folder, template), *mask_paths(folder, template).values()):
            path.unlink(missing_ok=True)
    return len(kept)


def _checked_record(folder: Path) -> BankRecord:
    record = BankRecord.model_validate(read_json(folder / BANK))
    if not all(is_safe_id(each.id) for each in record.templates):
        raise ValueError("the id of a template is no file name")
    return record


def mask_paths(folder: Path, template: Template) -> dict[str, Path]:
    """Target -> file of its mask."""
    places = enumerate(template.targets)
    return {target: Path(folder) / "masks" / f"{template.id}.{number}.png" for number, target in places}


def unreadable(folder: Path, error: Exception) -> CohortError:
    """The error about a bank that cannot be read, for people."""
    if isinstance(error, FileNotFoundError):
        return CohortError(
            f"{folder} is no whole template bank: {Path(error.filename or '').name} is missing.",
            remedy="Make one with `python -m SSLSegLib vessa bank COHORT --out FOLDER`.",
        )
    return CohortError(
        f"The template bank {folder} cannot be read: {str(error).splitlines()[0]}.",
        remedy="Make it again with `python -m SSLSegLib vessa bank COHORT --out FOLDER`.",
    )


def _write_png(path: Path, array: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        Image.fromarray(array).save(temporary, format="PNG", optimize=False)


def _read_png(path: Path, mode: str) -> np.ndarray:
    with Image.open(path, formats=["PNG"]) as opened:
        return np.array(opened.convert(mode))
