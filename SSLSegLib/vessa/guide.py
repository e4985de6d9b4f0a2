"""VESSA as the second supervisor of UniMatch v2 (paper 2, section 3.2): joint supervision and feedback.

The joint loss and its cosine schedule (equations 7 to 9) are UniMatch's, see :mod:`SSLSegLib.unimatch.step`; here is
what VESSA says, and how the teacher's prediction becomes a prompt for it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import binary_dilation

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.progress import Progress, silent
from SSLSegLib.unimatch.guides import GuideRequest, Sam2Guide, with_background
from SSLSegLib.unimatch.options import Prompting, UniMatchOptions
from SSLSegLib.vessa.cache import CachedInputs, build_cache
from SSLSegLib.vessa.features import Features
from SSLSegLib.vessa.inputs import InputSource, LiveInputs, Place
from SSLSegLib.vessa.options import VessaOptions
from SSLSegLib.vessa.places import Places
from SSLSegLib.vessa.saving import LoadedVessa
from SSLSegLib.vessa.segmenter import TemplateSegmenter
from SSLSegLib.vessa.templates import TemplateBank

__all__ = ["GuidedOptions", "VessaGuide", "make_vessa_guide"]

_LARGEST_LOGIT = 32.0  # SAM2 clamps its own mask logits to this


class GuidedOptions(UniMatchOptions):
    """Options of UniMatch v2 with VESSA as its guide.

    Args:
        guide: Always ``vessa``.
        prompting: Feedback; ``start`` is the part of the training before which VESSA is asked without it ("in later
            training stages": the paper names no moment; at a quarter eta is 0.15).
        feedback: False: the ablation "w/o student".
    """

    guide: Literal["vessa"] = "vessa"
    prompting: Prompting = Prompting(start=0.25)
    feedback: bool = True


class VessaGuide(Sam2Guide):
    """VESSA's answer in the views, from a set moment on prompted by the teacher.

    For each view and class one of the candidate templates is drawn by equation 1. The teacher's prediction comes back
    from the view to the slice: as mask logits (0, "unknown", where the view does not reach), as the box of the largest
    component unless the view cuts it off, and as points inside it: m_v = D_mask(p_VESSA, q_prompt).

    Args:
        segmenter: SAM2's side of VESSA, in eval mode.
        source: Live or cached inputs of its decoder.
        classes: Number of classes.
        prompting: Of the feedback.
        feedback: Whether there is any.
    """

    def __init__(
        self,
        segmenter: TemplateSegmenter,
        source: InputSource,
        classes: int,
        prompting: Prompting | None = None,
        *,
        feedback: bool = True,
    ) -> None:
        super().__init__(segmenter.sam2, prompting or Prompting(start=0.25))
        self.segmenter, self.source, self.classes, self.feedback = segmenter, source, classes, feedback

    @torch.no_grad()
    def __call__(self, request: GuideRequest) -> torch.Tensor:
        """Class probabilities in the views, whose origins the request must tell."""
        places = Places.of(request.origins, request.prediction.device)
        prediction = request.prediction.float()
        asked, which = self._draw(places, request.rng)
        told = self._seen_by_teacher(prediction, asked, which, request.fraction)
        prompts, told = self._prompts(places, prediction, asked, which, told, request.rng)
        untold = [index for index in range(len(asked)) if index not in set(told)]
        answer = torch.zeros_like(prediction[:, 1:])
        for group, prompting in ((untold, {}), (told, prompts)):
            if group:
                views = [which[index] for index in group]
                maps = places.to_views(self._decode([asked[index] for index in group], prompting), views)
                for index, map_ in zip(group, maps, strict=True):
                    answer[which[index], asked[index].target] = map_[0]
        return with_background(answer)

    def _draw(self, places: Places, rng: np.random.Generator) -> tuple[list[Place], list[int]]:
        """One template for each view and class that has any, by equation 1."""
        asked, which = [], []
        for view, (case, slice_) in enumerate(zip(places.cases, places.slices, strict=True)):
            for target in range(self.classes):
                weights = self.source.weights(case, slice_, target)
                if len(weights):
                    candidate = int(rng.choice(len(weights), p=weights / weights.sum()))
                    asked.append(Place(case, slice_, target, candidate))
                    which.append(view)
        return asked, which

    def _seen_by_teacher(
        self, prediction: torch.Tensor, asked: Sequence[Place], which: Sequence[int], fraction: float
    ) -> list[int]:
        """Questions on which the teacher has something to say: those of classes that it sees in the view."""
        if not self.feedback or fraction < self.prompting.start:
            return []
        there = F.one_hot(prediction.argmax(1), self.classes + 1).flatten(1, 2).any(1).tolist()
        return [index for index, place in enumerate(asked) if there[which[index]][place.target + 1]]

    def _prompts(
        self,
        places: Places,
        prediction: torch.Tensor,
        asked: Sequence[Place],
        which: Sequence[int],
        told: Sequence[int],
        rng: np.random.Generator,
    ) -> tuple[dict[str, Any], list[int]]:
        """Prompts for the questions ``told``, and those of them that have any (not too small for the grid)."""
        if not told:
            return {}, []
        side = self.model.sam_prompt_encoder.mask_input_size[0]
        views = [which[index] for index in told]
        values = [asked[index].target + 1 for index in told]
        label = prediction.argmax(1)
        hard = torch.stack([label[v] == value for v, value in zip(views, values, strict=True)])[:, None].float()
        masks = places.to_slices(hard, views, side)[:, 0] > 0.5
        seen = places.to_slices(torch.ones_like(hard), views, side)[:, 0] > 0.5
        kept = masks.flatten(1).any(1).nonzero().flatten().tolist()
        drawn = [masks[row].cpu().numpy() for row in kept]
        prompts: dict[str, Any] = {}
        if "mask" in self.prompting.forms and kept:
            of_class = torch.stack([prediction[views[row], values[row]] for row in kept])[:, None]
            logits = torch.logit(of_class, eps=1e-7).clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)
            prompts["masks"] = places.to_slices(logits, [views[row] for row in kept], side)
        points = self._points(drawn, rng, masks) if kept else None
        if points is not None:
            if "box" in self.prompting.forms:
                for mask, row, labels in zip(drawn, kept, points["point_labels"], strict=True):
                    if (binary_dilation(mask) & ~seen[row].cpu().numpy()).any():
                        labels[:2] = -1  # the box of a part is not the structure's box
            prompts["points"] = points
        return prompts, [told[row] for row in kept]

    def _decode(self, asked: Sequence[Place], prompts: dict[str, Any]) -> torch.Tensor:
        """Mask logits (n, 1, 4h, 4w) of whole slices: D_mask(p_VESSA, q_prompt)."""
        inputs = self.source.fetch(asked)
        return self.segmenter.decode(inputs.attended, inputs.finer, inputs.prompts, **prompts).logits


def make_vessa_guide(
    cohort: Cohort,
    vessa: LoadedVessa,
    bank: TemplateBank,
    features: Features,
    folder: Path,
    *,
    prompting: Prompting | None = None,
    feedback: bool = True,
    options: VessaOptions | None = None,
    cached: bool = True,
    dtype: torch.dtype = torch.bfloat16,
    progress: Progress = silent,
) -> VessaGuide:
    """The guide of a training on the unlabelled cases of a cohort.

    Args:
        cohort: As the training sees it: the order of its unlabelled cases counts.
        vessa: The model. With a cache, its language model is let go of afterwards.
        bank: Labelled slices of the cohort.
        features: By which templates are found.
        folder: For the cache.
        prompting, feedback: See :class:`GuidedOptions`.
        options: Candidates and temperature.
        cached: False: everything anew in every step, for measurements.
        dtype: Of the cache.
        progress: Gets ``stage`` and ``progress`` events of building it.
    """
    live = LiveInputs(cohort, vessa, bank, features, options or VessaOptions())
    source: InputSource = live
    if cached:
        build_cache(live, folder, dtype=dtype, progress=progress)
        source = CachedInputs(folder, [case.id for case in cohort.unlabelled], vessa.device)
        vessa.model.language = None
    return VessaGuide(vessa.model.segmenter, source, len(cohort.classes), prompting, feedback=feedback)
