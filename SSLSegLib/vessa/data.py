"""Datasets of the paper, as folders in the format of BiomedParseData."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from SSLSegLib.errors import CaseError, CohortError
from SSLSegLib.vessa.prompts import plain_phrase
from SSLSegLib.vessa.slices import LabelledSlice

__all__ = ["EXCLUDED", "PAPER_DATASETS", "BiomedParseSlices", "PaperDataset", "find_datasets"]


@dataclass(frozen=True)
class PaperDataset:
    """One row of the paper's list, supplement 6."""

    name: str
    folder: str
    modality: str
    content: str


PAPER_DATASETS: tuple[PaperDataset, ...] = (
    PaperDataset("AMOS22", "amos22", "CT, MR", "500 CT and 100 MR volumes, 15 abdominal organs"),
    PaperDataset("LGG", "LGG", "MR", "110 studies, tumour; the Kaggle set, three sequences as colours"),
    PaperDataset("M&Ms", "MMs", "MR", "375 cardiac cine studies, both ventricles and myocardium"),
    PaperDataset("CAMUS", "CAMUS", "US", "2,000 echocardiograms, left ventricle, myocardium, left atrium"),
    PaperDataset("ChestXray", "CXR_Masks_and_Labels", "CR", "896 radiographs, lungs"),
    PaperDataset("BUSI", "BreastUS", "US", "780 breast images, benign and malignant lesions"),
)
"""The datasets that the paper lists (it says seven and names six), with their folders in BiomedParseData."""

EXCLUDED = ("ACDC", "AbdomenCT-1K", "AbdomenCT1K")
"""Left out by default: the paper's test tasks, which stage 1 must not have seen."""


class BiomedParseSlices:
    """One dataset in the format of BiomedParseData.

    ``DATASET/train/NAME_MODALITY_SITE.png`` and ``DATASET/train_mask/NAME_MODALITY_SITE_TARGET.png`` (spaces as ``+``,
    anything but 0 is foreground); ``test`` and ``test_mask`` alike. Files are opened when they are asked for.

    Args:
        folder: Of the dataset.
        split: ``train`` or ``test``.

    Raises:
        CohortError: The folder does not have this form, or holds no image with a mask.
    """

    def __init__(self, folder: Path | str, split: str = "train") -> None:
        self.folder, self.split = Path(folder), split
        images, masks = self.folder / split, self.folder / f"{split}_mask"
        if not images.is_dir() or not masks.is_dir():
            raise CohortError(
                f"{self.folder} has no '{split}' and '{split}_mask' folders.",
                remedy="Name a dataset folder of BiomedParseData, or the folder that holds several.",
            )
        by_image: dict[str, list[str]] = {}
        for path in sorted(masks.glob("*.png")):
            image, _, target = path.stem.rpartition("_")
            by_image.setdefault(image, []).append(target)
        self.entries: list[LabelledSlice] = []
        self._names: list[str] = []
        for path in sorted(images.glob("*.png")):
            name, _, rest = path.stem.rpartition("_")
            name, _, modality = name.rpartition("_")
            if not name or not rest:
                raise CohortError(
                    f"{path.name} is not named NAME_MODALITY_SITE.png.", remedy="Restore the dataset's names."
                )
            targets = tuple(_plain(each) for each in by_image.get(path.stem, ()))
            self.entries.append(
                LabelledSlice(
                    id=f"{len(self._names):06d}",
                    dataset=self.folder.name,
                    subject=_subject(name),
                    modality=_plain(modality),
                    position=0.5,
                    targets=targets,
                )
            )
            self._names.append(path.stem)
        if not any(entry.targets for entry in self.entries):
            raise CohortError(f"{self.folder} holds no image with a mask in '{split}'.")

    def picture(self, index: int) -> np.ndarray:
        """See :class:`~SSLSegLib.vessa.slices.LabelledSlices`."""
        return self._open(self.folder / self.split / f"{self._names[index]}.png", "RGB")

    def mask(self, index: int, target: str) -> np.ndarray:
        """See :class:`~SSLSegLib.vessa.slices.LabelledSlices`."""
        if target not in self.entries[index].targets:
            return np.zeros(self.picture(index).shape[:2], bool)
        name = f"{self._names[index]}_{target.replace(' ', '+')}.png"
        return self._open(self.folder / f"{self.split}_mask" / name, "L") > 0

    def phrase(self, index: int, target: str) -> str:
        """See :class:`~SSLSegLib.vessa.slices.LabelledSlices`."""
        return plain_phrase(target)

    def _open(self, path: Path, mode: str) -> np.ndarray:
        try:
            with Image.open(path, formats=["PNG"]) as opened:
                return np.array(opened.convert(mode))
        except (OSError, UnidentifiedImageError) as error:
            raise CaseError(
                f"{path} cannot be read: {error}.", case_id=path.stem, remedy="Restore or remove the file."
            ) from error


def find_datasets(
    folder: Path | str, *, exclude: Iterable[str] = EXCLUDED, only: Iterable[str] | None = None
) -> list[Path]:
    """Dataset folders under a folder (or the folder itself), without those to exclude.

    Args:
        folder: Of one dataset or of several.
        exclude: Names, in any case; all whose name begins so.
        only: Just these, if given.

    Raises:
        CohortError: None is left.
    """
    folder = Path(folder)
    found = sorted(path.parent for path in folder.rglob("train_mask") if path.is_dir())
    banned = tuple(_bare(name) for name in exclude)
    kept = [path for path in found if not any(_bare(path.name).startswith(name) for name in banned)]
    if only is not None:
        kept = [path for path in kept if _bare(path.name) in {_bare(name) for name in only}]
    if not kept:
        left_out = f" ({', '.join(path.name for path in found)} left out)" if found else ""
        raise CohortError(
            f"There is no dataset to train on in {folder}{left_out}.",
            remedy="Name a folder of BiomedParseData datasets, each with 'train' and 'train_mask'.",
        )
    return kept


def _plain(text: str) -> str:
    return text.replace("+", " ")


def _bare(name: str) -> str:
    return "".join(each for each in name.casefold() if each.isalnum())


def _subject(name: str) -> str:
    """The subject that a slice's name begins with: what comes before the slice's number.

    BiomedParseData names slices ``amos_0007_23`` or ``patient101_frame01_3``; a name without a number behind its last
    separator is its own subject.
    """
    head, _, last = name.replace("-", "_").rpartition("_")
    return head if head and last.isdigit() else name
