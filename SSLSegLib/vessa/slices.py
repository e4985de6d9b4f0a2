"""Labelled slices, wherever they come from: pictures, and the masks of the structures in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.cases.intensities import to_display_range
from SSLSegLib.cases.reading import read_label, read_volume
from SSLSegLib.progress import Progress, silent
from SSLSegLib.pseudolabels.review import CORRECTED_LABEL, ReviewState, load_review
from SSLSegLib.pseudolabels.storage import LABELS, RESULT
from SSLSegLib.vessa.pictures import picture_of
from SSLSegLib.vessa.prompts import class_phrase, plain_phrase

__all__ = ["CohortSlices", "LabelledSlice", "LabelledSlices", "StoredSlices", "accepted_cases"]


@dataclass(frozen=True)
class LabelledSlice:
    """What is known of a slice without opening it.

    Args:
        id: Unique among its kind.
        dataset: Of which cohort or dataset; a template is only ever used within its own.
        subject: Whose; training never shows a subject its own slices as template.
        modality: DICOM modality, or as the dataset has it.
        position: Where in its volume, 0 first to 1 last slice; 0.5 where it has no place.
        targets: Names of the structures that it holds.
    """

    id: str
    dataset: str
    subject: str
    modality: str
    position: float
    targets: tuple[str, ...]


class LabelledSlices(Protocol):
    """Slices that can be opened one at a time."""

    entries: Sequence[LabelledSlice]

    def picture(self, index: int) -> np.ndarray:
        """uint8 (J, I, 3)."""

    def mask(self, index: int, target: str) -> np.ndarray:
        """bool (J, I); all False where the slice does not hold the target."""

    def phrase(self, index: int, target: str) -> str:
        """What the target is called in an instruction that names it."""


class StoredSlices:
    """Slices in memory.

    Args:
        entries: What they are.
        pictures: uint8 (J, I, 3) each.
        masks: Target -> bool (J, I), for each slice.
    """

    def __init__(
        self,
        entries: Sequence[LabelledSlice],
        pictures: Sequence[np.ndarray],
        masks: Sequence[dict[str, np.ndarray]],
    ) -> None:
        self.entries, self.pictures, self.masks = list(entries), list(pictures), list(masks)

    def picture(self, index: int) -> np.ndarray:
        """See :class:`LabelledSlices`."""
        return self.pictures[index]

    def mask(self, index: int, target: str) -> np.ndarray:
        """See :class:`LabelledSlices`."""
        found = self.masks[index].get(target)
        return np.zeros(self.pictures[index].shape[:2], bool) if found is None else found

    def phrase(self, index: int, target: str) -> str:
        """See :class:`LabelledSlices`."""
        return plain_phrase(target)


class CohortSlices(StoredSlices):
    """All slices of labelled cases of a cohort, with grey levels as TFFS has them.

    Args:
        cohort: Its classes are the targets.
        cases: Which cases; the labelled ones by default. Only their ``label`` is read, never a reference.
        empty: Keep slices that hold no class.
        progress: Gets ``progress`` events.

    Raises:
        CaseError: An image or label cannot be read, or a case is not labelled.
    """

    def __init__(
        self,
        cohort: Cohort,
        cases: Sequence[Case] | None = None,
        *,
        empty: bool = True,
        progress: Progress = silent,
    ) -> None:
        entries, pictures, masks = [], [], []
        chosen = cohort.labelled if cases is None else cases
        for number, case in enumerate(chosen):
            volume, label = read_volume(cohort, case), read_label(cohort, case).array
            display = to_display_range(volume, cohort.modality, cohort.window)
            for index in range(len(label)):
                there = {each.name: label[index] == each.value for each in cohort.classes}
                there = {name: mask for name, mask in there.items() if mask.any()}
                if there or empty:
                    place = index / max(len(label) - 1, 1)
                    entries.append(
                        LabelledSlice(
                            f"{case.id}.{index:04d}", cohort.name, case.id, cohort.modality, place, tuple(there)
                        )
                    )
                    pictures.append(picture_of(display, index))
                    masks.append(there)
            progress("progress", stage="Reading labelled cases", done=number + 1, total=len(chosen), case=case.id)
        super().__init__(entries, pictures, masks)
        self._phrases = {each.name: class_phrase(each) for each in cohort.classes}

    def phrase(self, index: int, target: str) -> str:
        """In the words of the class's terminology."""
        return self._phrases[target]


def accepted_cases(cohort: Cohort, job: Path | str) -> list[Case]:
    """Unlabelled cases that a person has accepted or corrected, as labelled ones with that label.

    A decision on a label map that has changed since counts no more.

    Args:
        cohort: Theirs.
        job: Folder of a pseudo-labelling job, or its ``results`` folder.
    """
    results = Path(job) / "results" if (Path(job) / "results").is_dir() else Path(job)
    files = {ReviewState.ACCEPTED: LABELS, ReviewState.CORRECTED: CORRECTED_LABEL}
    found = []
    for case in cohort.unlabelled:
        folder = results / case.id
        if not (folder / RESULT).is_file():
            continue
        review = load_review(folder)
        if review.state in files and not review.is_stale(folder):
            label = str((folder / files[review.state]).absolute())
            found.append(case.model_copy(update={"role": "labelled", "label": label, "reference": None}))
    return found
