"""The template bank: labelled slices, found again by likeness (paper 2, section 3.1)."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from SSLSegLib.errors import CohortError
from SSLSegLib.vessa.bank_files import BANK, BankContent, Template, read_bank, write_bank
from SSLSegLib.vessa.candidates import TOP, Candidates
from SSLSegLib.vessa.features import Features
from SSLSegLib.vessa.slices import LabelledSlice, LabelledSlices

__all__ = [
    "BANK",
    "Candidates",
    "Template",
    "TemplateBank",
    "chosen_slices",
]


class TemplateBank:
    """Templates in memory, with their features.

    Args:
        templates: What they are.
        pictures: uint8 (J, I, 3) each.
        masks: Target -> bool (J, I) of each.
        features: float32 (n, d), unit vectors.
        features_name: Of the :class:`~SSLSegLib.vessa.features.Features` that made them.
    """

    def __init__(
        self,
        templates: Sequence[Template],
        pictures: Sequence[np.ndarray],
        masks: Sequence[dict[str, np.ndarray]],
        features: np.ndarray,
        features_name: str,
    ) -> None:
        self.templates, self.pictures, self.masks = list(templates), list(pictures), list(masks)
        self.features, self.features_name = np.asarray(features, np.float32), features_name

    def __len__(self) -> int:
        return len(self.templates)

    @classmethod
    def of(
        cls,
        slices: LabelledSlices,
        features: Features,
        indices: Sequence[int] | None = None,
        *,
        origin: Literal["label", "accepted"] = "label",
    ) -> "TemplateBank":
        """A bank of slices.

        Args:
            slices: Where they come from.
            features: To find them by.
            indices: Which; by default all that hold a target.
            origin: Of the masks.

        Raises:
            CohortError: None of them holds a target.
        """
        chosen = range(len(slices.entries)) if indices is None else indices
        chosen = [index for index in chosen if slices.entries[index].targets]
        if not chosen:
            raise CohortError(
                "A template bank needs slices that hold a class; there are none.",
                remedy="Label at least one case in which every class can be seen.",
            )
        pictures = [slices.picture(index) for index in chosen]
        now = datetime.now(UTC).isoformat(timespec="seconds")
        templates = [_template(slices.entries[index], origin, now) for index in chosen]
        masks = [{name: slices.mask(index, name) for name in slices.entries[index].targets} for index in chosen]
        return cls(templates, pictures, masks, features(pictures), features.name)

    def grown(self, other: "TemplateBank") -> "TemplateBank":
        """This bank and the templates of another (accepted cases, say); of equal ids the other's win.

        Raises:
            CohortError: The two were indexed by different features.
        """
        self.require_features(other.features_name)
        replaced = {each.id for each in other.templates}
        kept = [index for index, each in enumerate(self.templates) if each.id not in replaced]
        mine = self.part(kept)
        return TemplateBank(
            [*mine.templates, *other.templates],
            [*mine.pictures, *other.pictures],
            [*mine.masks, *other.masks],
            np.concatenate([mine.features, other.features]) if kept else other.features,
            self.features_name,
        )

    def part(self, indices: Sequence[int]) -> "TemplateBank":
        """Only some of the templates."""
        return TemplateBank(
            [self.templates[index] for index in indices],
            [self.pictures[index] for index in indices],
            [self.masks[index] for index in indices],
            self.features[list(indices)],
            self.features_name,
        )

    def holds(self, target: str) -> bool:
        """Whether any template shows the target."""
        return any(target in each.targets for each in self.templates)

    def require_targets(self, targets: Sequence[str]) -> list[str]:
        """Those of the targets that no template shows.

        Raises:
            CohortError: These are all of them.
        """
        missing = [name for name in targets if not self.holds(name)]
        if len(missing) == len(targets):
            raise CohortError(
                f"The template bank holds none of the classes ({', '.join(missing)}).",
                remedy="Make a bank from labelled cases of these classes with `vessa bank`.",
            )
        return missing

    def require_all_targets(self, targets: Sequence[str]) -> None:
        """Refuse to guide a training by a bank that lacks a class: its silence would be learnt as background.

        Raises:
            CohortError: No template shows one of the targets.
        """
        if missing := self.require_targets(targets):
            raise CohortError(
                f"No template shows '{missing[0]}', which a training guided by this bank would learn as background.",
                remedy="Let the bank grow by labelled cases that show it: `vessa bank COHORT --out BANK`.",
            )

    def candidates(
        self,
        feature: np.ndarray,
        target: str,
        *,
        top: int = TOP,
        dataset: str | None = None,
        modality: str | None = None,
        not_subject: str | None = None,
        position: float | None = None,
        position_weight: float = 0.0,
    ) -> Candidates:
        """The templates most like a picture that hold a target: T_top3 of equation 1.

        Args:
            feature: (d,), of the picture.
            target: Only templates that hold it.
            top: How many.
            dataset, modality: Only templates of these, if given.
            not_subject: Leave this subject's out (training).
            position: Of the slice in its volume, 0 to 1.
            position_weight: Subtracted from the similarity per unit of difference in position; the paper has none (0).
        """
        usable = [
            index
            for index, each in enumerate(self.templates)
            if target in each.targets
            and dataset in (None, each.dataset)
            and modality in (None, each.modality)
            and each.subject != not_subject
        ]
        if not usable:
            return Candidates((), np.empty(0, np.float32))
        scores = self.features[usable] @ np.asarray(feature, np.float32)
        if position is not None and position_weight:
            places = np.array([self.templates[index].position for index in usable], np.float32)
            scores = scores - position_weight * np.abs(places - position)
        best = np.argsort(-scores, kind="stable")[:top]
        return Candidates(tuple(usable[index] for index in best), scores[best])

    def require_features(self, name: str) -> None:
        """Refuse to compare vectors of different kinds.

        Raises:
            CohortError: The bank was indexed by other features.
        """
        if name != self.features_name:
            raise CohortError(
                f"The template bank was indexed by '{self.features_name}', not by '{name}'.",
                remedy="Use the weights that the bank was made with, or make it again with `vessa bank`.",
            )

    def save(self, folder: Path) -> None:
        """Write a folder; see :mod:`SSLSegLib.vessa.bank_files`.

        Raises:
            CohortError: The folder holds something else than a bank.
        """
        write_bank(folder, BankContent(self.templates, self.pictures, self.masks, self.features, self.features_name))

    @classmethod
    def load(cls, folder: Path) -> "TemplateBank":
        """Read a folder.

        Raises:
            CohortError: It holds no bank, or files of it are missing or do not fit.
        """
        return cls(*read_bank(folder))

    def fingerprint(self) -> str:
        """Changes with anything that a result depends on: features, masks and pictures of all templates."""
        digest = hashlib.sha256(self.features_name.encode())
        for template, picture, masks in zip(self.templates, self.pictures, self.masks, strict=True):
            digest.update(repr(_identity(template)).encode())
            digest.update(np.ascontiguousarray(picture).tobytes())
            for target in template.targets:
                digest.update(np.packbits(masks[target]).tobytes())
        digest.update(np.ascontiguousarray(self.features).tobytes())
        return digest.hexdigest()


def chosen_slices(slices: LabelledSlices, per_target: int | None = None) -> list[int]:
    """Slices for a bank: all that hold a target, or ``per_target`` for each, evenly spread over its slices.

    The slices of a target are taken in the order of their position, so that a small bank still covers its extent.
    """
    held: dict[tuple[str, str], list[int]] = {}
    for index, entry in enumerate(slices.entries):
        for target in entry.targets:
            held.setdefault((entry.dataset, target), []).append(index)
    if per_target is None:
        return sorted({index for indices in held.values() for index in indices})
    chosen: set[int] = set()
    for indices in held.values():
        ordered = sorted(indices, key=lambda index: slices.entries[index].position)
        places = (np.arange(per_target) + 0.5) / per_target * len(ordered)
        chosen |= {ordered[int(place)] for place in places}
    return sorted(chosen)


def _template(entry: LabelledSlice, origin: str, added: str) -> Template:
    values: dict[str, Any] = {name: getattr(entry, name) for name in LabelledSlice.__dataclass_fields__}
    return Template(**values, origin=origin, added=added)


def _identity(template: Template) -> dict[str, Any]:
    return template.model_dump(mode="json", exclude={"added"})
