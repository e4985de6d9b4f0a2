"""Pairs of target and template that stage 1 learns from, drawn from any labelled slices."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Dataset

from SSLSegLib.errors import CohortError
from SSLSegLib.seeds import named_rng, named_seed
from SSLSegLib.vessa.augment import TemplateRules, augment_template
from SSLSegLib.vessa.candidates import TEMPERATURE
from SSLSegLib.vessa.features import Features
from SSLSegLib.vessa.options import TrainingOptions
from SSLSegLib.vessa.prompts import draw_answer, draw_instruction
from SSLSegLib.vessa.slices import LabelledSlices
from SSLSegLib.vessa.templates import TemplateBank, chosen_slices

__all__ = ["Joined", "Pair", "StageOneData", "TrainingPairs", "prepare_data", "split_bank"]

_TRIES = 1000


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

    def phrase(self, index: int, target: str) -> str:
        """See :class:`~SSLSegLib.vessa.slices.LabelledSlices`."""
        source, place = self._places[index]
        return source.phrase(place, target)


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
        phrase = self.slices.phrase(index, target) if self.named else None
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


@dataclass(frozen=True)
class StageOneData:
    """What is trained and validated on; no subject is in two of the three."""

    slices: LabelledSlices
    bank: TemplateBank
    training: Sequence[int]
    validation: Sequence[int]
    features: Features

    def pairs(self, options: TrainingOptions, *, rank: int = 0) -> TrainingPairs:
        """Pairs to train on, one entry a micro-step."""
        return TrainingPairs(
            self.slices,
            self.training,
            self.bank,
            self.features,
            batch=options.batch,
            steps=options.steps * options.accumulate,
            seed=options.seed,
            empty=options.empty,
            rules=TemplateRules() if options.augment else None,
            temperature=options.temperature,
            named=options.named,
            rank=rank,
        )

    def validation_pairs(self, options: TrainingOptions) -> TrainingPairs:
        """The same pairs at every validation; templates are the most alike, as they are."""
        return TrainingPairs(
            self.slices,
            self.validation,
            self.bank,
            self.features,
            batch=1,
            steps=options.validation_pairs,
            seed=named_seed(options.seed, "validation"),
            empty=options.empty,
            temperature=1e-6,
            named=options.named,
        )


def prepare_data(slices: LabelledSlices, features: Features, options: TrainingOptions) -> StageOneData:
    """Split subjects into template bank, training and validation.

    Raises:
        CohortError: A dataset has too few subjects.
    """
    for_bank, rest = split_bank(slices, options.bank_part, seed=options.seed)
    others = _Part(slices, rest)
    held_out, training = split_bank(others, options.validation_part, seed=named_seed(options.seed, "validation"))
    members = _Part(slices, for_bank)
    bank = TemplateBank.of(members, features, chosen_slices(members, options.bank_slices))
    return StageOneData(slices, bank, [rest[i] for i in training], [rest[i] for i in held_out], features)


class _Part:
    """Some of the slices."""

    def __init__(self, slices: LabelledSlices, indices: Sequence[int]) -> None:
        self.slices, self.indices = slices, list(indices)
        self.entries = [slices.entries[index] for index in self.indices]

    def picture(self, index: int):
        return self.slices.picture(self.indices[index])

    def mask(self, index: int, target: str):
        return self.slices.mask(self.indices[index], target)

    def phrase(self, index: int, target: str) -> str:
        return self.slices.phrase(self.indices[index], target)
