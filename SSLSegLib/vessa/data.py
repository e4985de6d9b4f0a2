"""What stage 1 learns from: folders in the format of BiomedParseData, any cohort, and the pairs drawn from them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset

from SSLSegLib.errors import CaseError, CohortError
from SSLSegLib.seeds import named_rng
from SSLSegLib.vessa.augment import TemplateRules, augment_template
from SSLSegLib.vessa.features import Features
from SSLSegLib.vessa.prompts import draw_answer, draw_instruction
from SSLSegLib.vessa.slices import LabelledSlice, LabelledSlices
from SSLSegLib.vessa.templates import TEMPERATURE, TemplateBank

__all__ = [
    "EXCLUDED",
    "PAPER_DATASETS",
    "BiomedParseSlices",
    "Joined",
    "Pair",
    "TrainingPairs",
    "find_datasets",
    "split_bank",
]


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

_TRIES = 1000


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


class Joined:
    """Several sources as one."""

    def __init__(self, sources: Sequence[LabelledSlices]) -> None:
        self.sources = list(sources)
        self.entries = [entry for source in self.sources for entry in source.entries]
        self._places = [(source, index) for source in self.sources for index in range(len(source.entries))]

    def picture(self, index: int) -> np.ndarray:
        """See :class:`~SSLSegLib.vessa.slices.LabelledSlices`."""
        source, place = self._places[index]
        return source.picture(place)

    def mask(self, index: int, target: str) -> np.ndarray:
        """See :class:`~SSLSegLib.vessa.slices.LabelledSlices`."""
        source, place = self._places[index]
        return source.mask(place, target)


def split_bank(
    slices: LabelledSlices, part: float = 0.05, *, seed: int = 42, at_least: int = 1
) -> tuple[list[int], list[int]]:
    """A random part of the subjects of each dataset for the template bank (paper: 5 % by patient), and the others.

    Args:
        slices: All of them.
        part: Of each dataset's subjects.
        seed: Of the draw.
        at_least: Subjects of each dataset.

    Returns:
        Indices of slices for the bank and for training; no subject is in both.

    Raises:
        CohortError: A dataset has too few subjects to spare any.
    """
    subjects: dict[str, list[str]] = {}
    for entry in slices.entries:
        known = subjects.setdefault(entry.dataset, [])
        if entry.subject not in known:
            known.append(entry.subject)
    chosen = set()
    for dataset, known in subjects.items():
        count = max(at_least, round(part * len(known)))
        if count >= len(known):
            raise CohortError(
                f"'{dataset}' has {len(known)} labelled subjects: none is left to train on beside the template bank.",
                remedy="Train on a dataset with more labelled subjects.",
            )
        rng = named_rng(seed, "bank", dataset)
        chosen |= {(dataset, known[index]) for index in rng.choice(len(known), count, replace=False)}
    indices = range(len(slices.entries))
    inside = [(slices.entries[index].dataset, slices.entries[index].subject) in chosen for index in indices]
    return [i for i in indices if inside[i]], [i for i in indices if not inside[i]]


@dataclass(frozen=True)
class Pair:
    """What a step sees of one pair.

    Args:
        target, template: uint8 (J, I, 3).
        target_mask, template_mask: bool (J, I); the target's is empty where it lacks the structure.
        instruction, answer: For the language model.
    """

    target: np.ndarray
    target_mask: np.ndarray
    template: np.ndarray
    template_mask: np.ndarray
    instruction: str
    answer: str


class TrainingPairs(Dataset):
    """The pairs of each step, a map-style dataset over steps: they depend on the seed and the step alone.

    A dataset is drawn, then one of its structures, then a slice that holds it (or one that lacks it), then a template
    by equation 1; so neither large datasets nor frequent structures crowd out the others.

    Args:
        slices: Where targets come from.
        indices: Which of them.
        bank: Where templates come from.
        features: By which they are found.
        batch: Pairs a step.
        steps: How many.
        seed: Of all draws.
        empty: Part of the pairs whose target lacks the structure.
        rules: Of the template's augmentation; None for none (validation).
        temperature: tau of equation 1.
        named: Tell the language model the structure's name.
        rank: Of this process among several.

    Raises:
        CohortError: No structure is both in the slices and in the bank.
    """

    def __init__(
        self,
        slices: LabelledSlices,
        indices: Sequence[int],
        bank: TemplateBank,
        features: Features,
        *,
        batch: int,
        steps: int,
        seed: int,
        empty: float = 0.15,
        rules: TemplateRules | None = None,
        temperature: float = TEMPERATURE,
        named: bool = False,
        rank: int = 0,
    ) -> None:
        bank.require_features(features.name)
        self.slices, self.bank, self.features = slices, bank, features
        self.batch, self.steps, self.seed, self.rank = batch, steps, seed, rank
        self.empty, self.rules, self.temperature, self.named = empty, rules, temperature, named
        self._vectors: dict[int, np.ndarray] = {}
        self._held: dict[str, dict[str, tuple[list[int], list[int]]]] = {}
        in_bank = {(each.dataset, target) for each in bank.templates for target in each.targets}
        by_dataset: dict[str, list[int]] = {}
        for index in indices:
            by_dataset.setdefault(slices.entries[index].dataset, []).append(index)
        for dataset, members in by_dataset.items():
            for target in sorted({name for index in members for name in slices.entries[index].targets}):
                if (dataset, target) in in_bank:
                    there = [index for index in members if target in slices.entries[index].targets]
                    lacking = [index for index in members if target not in slices.entries[index].targets]
                    self._held.setdefault(dataset, {})[target] = there, lacking
        if not self._held:
            raise CohortError(
                "No structure is in both the training slices and the template bank.",
                remedy="Give the bank slices of the same datasets.",
            )

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> list[Pair]:
        """The pairs of a step."""
        rng = named_rng(self.seed, "pairs", step, self.rank)
        return [self._draw(rng) for _ in range(self.batch)]

    def _draw(self, rng: np.random.Generator) -> Pair:
        for _ in range(_TRIES):
            datasets = sorted(self._held)
            dataset = datasets[rng.integers(len(datasets))]
            targets = sorted(self._held[dataset])
            target = targets[rng.integers(len(targets))]
            there, lacking = self._held[dataset][target]
            among = lacking if lacking and rng.random() < self.empty else there
            index = among[rng.integers(len(among))]
            entry = self.slices.entries[index]
            found = self.bank.candidates(
                self._vector(index), target, dataset=dataset, modality=entry.modality, not_subject=entry.subject
            )
            if found.indices:
                break
        else:
            raise CohortError(
                "The template bank holds no template of other subjects for the slices to train on.",
                remedy="Take more subjects into the bank.",
            )
        chosen = found.sample(rng, self.temperature)
        template, mask = self.bank.pictures[chosen], self.bank.masks[chosen][target]
        if self.rules is not None:
            template, mask = augment_template(rng, template, mask, self.rules)
        phrase = target if self.named else None
        return Pair(
            target=self.slices.picture(index),
            target_mask=self.slices.mask(index, target),
            template=template,
            template_mask=mask,
            instruction=draw_instruction(rng, phrase),
            answer=draw_answer(rng),
        )

    def _vector(self, index: int) -> np.ndarray:
        """Feature of a target, made once."""
        if index not in self._vectors:
            self._vectors[index] = self.features([self.slices.picture(index)])[0]
        return self._vectors[index]


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
