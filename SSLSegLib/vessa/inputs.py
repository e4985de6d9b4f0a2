"""What VESSA's mask decoder needs of an unlabelled slice, computed when it is asked for."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.cases.intensities import to_display_range
from SSLSegLib.cases.reading import read_volume
from SSLSegLib.vessa.candidates import Candidates
from SSLSegLib.vessa.features import Features
from SSLSegLib.vessa.options import VessaOptions
from SSLSegLib.vessa.pictures import picture_of
from SSLSegLib.vessa.prompts import class_phrase
from SSLSegLib.vessa.saving import LoadedVessa
from SSLSegLib.vessa.segment import TemplateMemories, find_candidates
from SSLSegLib.vessa.segmenter import Levels
from SSLSegLib.vessa.templates import TemplateBank

__all__ = ["DecoderInputs", "InputSource", "LiveInputs", "Place"]


class Place(NamedTuple):
    """One question: case (number among the unlabelled), slice, class (number) and candidate template (0 first)."""

    case: int
    slice: int
    target: int
    candidate: int


class DecoderInputs(NamedTuple):
    """What the mask decoder takes for n places: q (n, C, h, w), the finer levels, and h_seg (n, C) or None."""

    attended: torch.Tensor
    finer: Levels
    prompts: torch.Tensor | None


class InputSource(Protocol):
    """Where inputs of the decoder come from."""

    def weights(self, case: int, slice_: int, target: int) -> np.ndarray:
        """P of the candidates by equation 1; empty where no template holds the class."""

    def fetch(self, places: Sequence[Place]) -> DecoderInputs:
        """Inputs for some places, float32, on the model's device."""


class LiveInputs:
    """Everything computed anew whenever it is asked for, the language model included.

    Args:
        cohort: Its unlabelled cases, in their order, are the places' cases.
        vessa: The model.
        bank: The templates.
        features: By which they are found.
        options: Candidates and temperature.
    """

    def __init__(
        self, cohort: Cohort, vessa: LoadedVessa, bank: TemplateBank, features: Features, options: VessaOptions
    ) -> None:
        bank.require_features(features.name)
        self.cohort, self.vessa, self.bank, self.features, self.options = cohort, vessa, bank, features, options
        self.model = vessa.model
        self.targets = [each.name for each in cohort.classes]
        self.memories = TemplateMemories(self.model, bank)
        self._pictures: dict[int, list[np.ndarray]] = {}
        self._found: dict[tuple[int, int, int], Candidates] = {}

    def slices(self, case: int) -> int:
        """Number of slices of a case."""
        return len(self._of(case))

    def weights(self, case: int, slice_: int, target: int) -> np.ndarray:
        """See :class:`InputSource`."""
        found = self._candidates(case, slice_, target)
        return found.probabilities(self.options.temperature) if found.indices else np.empty(0)

    @torch.no_grad()
    def fetch(self, places: Sequence[Place]) -> DecoderInputs:
        """See :class:`InputSource`."""
        slices = list(dict.fromkeys((place.case, place.slice) for place in places))
        encoded = self.model.encode([self._of(case)[slice_] for case, slice_ in slices])
        row = [slices.index((place.case, place.slice)) for place in places]
        levels = tuple(level[row] for level in encoded)
        templates = [
            self._candidates(place.case, place.slice, place.target).indices[place.candidate] for place in places
        ]
        names = [self.targets[place.target] for place in places]
        attended = self.model.segmenter.attend(levels, self.memories(list(zip(templates, names, strict=True))))
        prompts = self.model.prompts(
            [self._of(place.case)[place.slice] for place in places],
            [self.bank.pictures[template] for template in templates],
            [self.bank.masks[template][name] for template, name in zip(templates, names, strict=True)],
            [class_phrase(self.cohort.classes[place.target]) for place in places] if self.options.named else None,
        )
        return DecoderInputs(attended, levels[:-1], prompts)

    def release(self, case: int) -> None:
        """Forget the pictures of a case."""
        self._pictures.pop(case, None)

    def _of(self, case: int) -> list[np.ndarray]:
        if case not in self._pictures:
            volume = read_volume(self.cohort, self.cohort.unlabelled[case])
            display = to_display_range(volume, self.cohort.modality, self.cohort.window)
            self._pictures[case] = [picture_of(display, index) for index in range(display.shape[1])]
        return self._pictures[case]

    def _candidates(self, case: int, slice_: int, target: int) -> Candidates:
        if (case, slice_, target) not in self._found:
            pictures = self._of(case)
            (vector,) = self.features([pictures[slice_]])
            for number, name in enumerate(self.targets):
                found = find_candidates(self.bank, vector, name, self.options, slice_, len(pictures))
                self._found[case, slice_, number] = found
        return self._found[case, slice_, target]
