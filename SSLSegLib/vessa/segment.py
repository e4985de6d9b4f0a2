"""Pseudo-labels for a cohort from a template bank: VESSA alone, as TFFS does it without training."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.cases.frames import logits_to_grid
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.intensities import to_display_range
from SSLSegLib.cases.reading import read_volume
from SSLSegLib.progress import Progress, silent
from SSLSegLib.pseudolabels.label import PseudoLabel, build_pseudo_label, make_provenance
from SSLSegLib.seeds import named_rng
from SSLSegLib.vessa.candidates import Candidates
from SSLSegLib.vessa.features import Features, Sam2Features, sam2_features
from SSLSegLib.vessa.model import Vessa
from SSLSegLib.vessa.options import VessaOptions
from SSLSegLib.vessa.pictures import masks_to_frames, picture_of, pictures_to_frames
from SSLSegLib.vessa.prompts import class_phrase
from SSLSegLib.vessa.saving import LoadedVessa
from SSLSegLib.vessa.segmenter import Levels, Memory
from SSLSegLib.vessa.templates import TemplateBank

__all__ = ["METHOD", "METHOD_WITHOUT_VLM", "TemplateMemories", "find_candidates", "segment_case", "segment_cohort"]

METHOD, METHOD_WITHOUT_VLM = "VESSA", "VESSA without VLM"
STAGE = "Segmenting"


class TemplateMemories:
    """Memories of templates, made when first asked for and kept: they depend on template and class only.

    Args:
        model: Of what remembers.
        bank: The templates.
    """

    def __init__(self, model: Vessa, bank: TemplateBank) -> None:
        self.model, self.bank = model, bank
        self._kept: dict[tuple[int, str], Memory] = {}

    @torch.no_grad()
    def __call__(self, pairs: Sequence[tuple[int, str]]) -> Memory | None:
        """Memories of (template, class) pairs, stacked; None where the model has no memory."""
        if not self.model.configuration.memory:
            return None
        for template, target in dict.fromkeys(pairs):
            if (template, target) not in self._kept:
                side, device = self.model.segmenter.side, self.model.device
                frames = pictures_to_frames([self.bank.pictures[template]], side).to(device)
                masks = masks_to_frames([self.bank.masks[template][target]], side).to(device)
                self._kept[template, target] = self.model.remember(frames, masks)
        found = [self._kept[pair] for pair in pairs]
        return Memory(torch.cat([each.features for each in found]), torch.cat([each.pointers for each in found]))


def segment_cohort(
    cohort: Cohort,
    vessa: LoadedVessa,
    bank: TemplateBank,
    options: VessaOptions,
    *,
    seed: int,
    sink: Callable[[PseudoLabel], None],
    features: Features | None = None,
    progress: Progress = silent,
    skip: Collection[str] = (),
) -> None:
    """Pseudo-label every unlabelled case (paper 2, "VESSA" in table 1).

    Args:
        cohort: Whose unlabelled cases; its references stay unseen.
        vessa: The model.
        bank: Labelled slices of this cohort or of one with the same class names.
        options: How.
        seed: Of the draws of ``options.templates == "sample"``.
        sink: Given each pseudo-label the moment it is ready.
        features: That the bank was indexed by; those of the model's SAM2 by default.
        progress: Gets ``stage``, ``progress``, ``warning`` and ``result`` events.
        skip: Ids of cases that are finished already.

    Raises:
        CohortError: The bank was indexed by other features, or holds none of the classes.
        CaseError: A case cannot be read.
    """
    cohort.require(labelled=0, unlabelled=1)
    features = features or sam2_features(vessa.model.segmenter.sam2)
    bank.require_features(features.name)
    for name in bank.require_targets([each.name for each in cohort.classes]):
        progress("warning", message=f"No template shows '{name}'.")
    waiting = [case for case in cohort.unlabelled if case.id not in skip]
    memories = TemplateMemories(vessa.model, bank)
    progress("stage", stage=STAGE, total=len(waiting))
    for number, case in enumerate(waiting):
        sink(segment_case(cohort, case, vessa, bank, options, features, memories, seed=seed, progress=progress))
        progress("progress", stage=STAGE, done=number + 1, total=len(waiting), case=case.id)
        progress("result", case=case.id)


def segment_case(
    cohort: Cohort,
    case: Case,
    vessa: LoadedVessa,
    bank: TemplateBank,
    options: VessaOptions,
    features: Features,
    memories: TemplateMemories,
    *,
    seed: int,
    progress: Progress = silent,
) -> PseudoLabel:
    """Pseudo-label one case, slice by slice and class by class; see :func:`segment_cohort`."""
    volume = read_volume(cohort, case)
    display = to_display_range(volume, cohort.modality, cohort.window)
    slices = _Slices(vessa.model, display, volume.geometry, features, options.batch)
    probability = np.zeros((len(cohort.classes), *volume.geometry.shape), np.float32)
    variance = np.zeros_like(probability)
    for chosen, pictures, levels, vectors in slices:
        for number, segment in enumerate(cohort.classes):
            rng = [named_rng(seed, case.id, segment.name, index) for index in chosen]
            found = [
                find_candidates(bank, vector, segment.name, options, index, len(display[0]))
                for index, vector in zip(chosen, vectors, strict=True)
            ]
            weights = [_weights(each, options, draw) for each, draw in zip(found, rng, strict=True)]
            asked = [
                (place, template, weight)
                for place, (each, of_it) in enumerate(zip(found, weights, strict=True))
                for template, weight in zip(each.indices, of_it, strict=True)
                if weight > 0
            ]
            for start in range(0, len(asked), options.batch):
                part = asked[start : start + options.batch]
                maps = _answers(vessa.model, bank, memories, segment, part, pictures, levels, options)
                for (place, _, weight), map_ in zip(part, logits_to_grid(maps, volume.geometry.in_plane), strict=True):
                    there = map_.sigmoid().cpu().numpy()
                    probability[number, chosen[place]] += weight * there
                    variance[number, chosen[place]] += weight * there**2
        progress("progress", stage=f"Slices of {case.id}", done=chosen[-1] + 1, total=len(display[0]), case=case.id)
    variance = np.clip(variance - probability**2, 0, None)
    return build_pseudo_label(
        case.id,
        probability.clip(0, 1),
        volume.geometry,
        cohort.classes,
        variance=variance if options.templates == "mean" else None,
        threshold=options.threshold,
        largest_component=options.largest_component,
        provenance=make_provenance(
            METHOD_WITHOUT_VLM if vessa.model.language is None else METHOD,
            seed=seed,
            labelled=sorted({each.subject for each in bank.templates}),
            options={**options.model_dump(mode="json"), "bank": bank.fingerprint(), "templates_in_bank": len(bank)},
            weights=vessa.name,
            weights_sha256=vessa.sha256,
        ),
    )


def find_candidates(
    bank: TemplateBank, vector: np.ndarray, target: str, options: VessaOptions, index: int, slices: int
) -> Candidates:
    """The templates for one slice and class."""
    return bank.candidates(
        vector,
        target,
        top=options.top,
        position=index / max(slices - 1, 1),
        position_weight=options.position_weight,
    )


def _weights(found: Candidates, options: VessaOptions, rng: np.random.Generator) -> np.ndarray:
    """How much each candidate counts."""
    weights = np.zeros(len(found.indices))
    if not len(weights):
        return weights
    if options.templates == "mean":
        return found.probabilities(options.temperature)
    chosen = 0 if options.templates == "best" else found.indices.index(found.sample(rng, options.temperature))
    weights[chosen] = 1
    return weights


@torch.no_grad()
def _answers(
    model: Vessa,
    bank: TemplateBank,
    memories: TemplateMemories,
    segment: SegmentClass,
    asked: Sequence[tuple[int, int, float]],
    pictures: Sequence[np.ndarray],
    levels: Levels,
    options: VessaOptions,
) -> torch.Tensor:
    """Mask logits (n, 4h, 4w) of (place in the batch, template, weight)."""
    target, places = segment.name, [place for place, _, _ in asked]
    of_targets = tuple(level[places] for level in levels)
    prompts = model.prompts(
        [pictures[place] for place in places],
        [bank.pictures[template] for _, template, _ in asked],
        [bank.masks[template][target] for _, template, _ in asked],
        [class_phrase(segment)] * len(asked) if options.named else None,
    )
    attended = model.segmenter.attend(of_targets, memories([(template, target) for _, template, _ in asked]))
    return model.segmenter.decode(attended, of_targets[:-1], prompts).logits[:, 0]


@dataclass(frozen=True)
class _Slices:
    """Batches of slices with their pictures, image features and vectors."""

    model: Vessa
    display: np.ndarray
    geometry: Geometry
    features: Features
    batch: int

    def __iter__(self) -> Iterator[tuple[list[int], list[np.ndarray], Levels, np.ndarray]]:
        count = self.display.shape[1]
        for start in range(0, count, self.batch):
            chosen = list(range(start, min(start + self.batch, count)))
            pictures = [picture_of(self.display, index) for index in chosen]
            levels = self.model.encode(pictures)
            if isinstance(self.features, Sam2Features) and self.features.model is self.model.segmenter.sam2:
                vectors = self.features.of_top_level(levels[-1])
            else:
                vectors = self.features(pictures)
            yield chosen, pictures, levels, vectors
