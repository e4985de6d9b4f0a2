"""Batches of views. What a step sees depends on the seed and the step alone, never on what was drawn before."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from torch.utils.data import Dataset

from SSLSegLib.errors import CohortError
from SSLSegLib.seeds import named_rng
from SSLSegLib.unimatch.losses import IGNORE
from SSLSegLib.unimatch.options import UniMatchOptions
from SSLSegLib.unimatch.slices import SliceStack
from SSLSegLib.unimatch.views import (
    VIEWS,
    Origin,
    WeakView,
    draw_cutmix_box,
    draw_weak_view,
    outside,
    strong_view,
    warp,
)

__all__ = ["Batch", "StepBatches"]


@dataclass(frozen=True)
class Batch:
    """What one step sees: L labelled and U unlabelled views of S x S pixels.

    Args:
        images: uint8 (L, S, S, 3), weak views of labelled slices.
        labels: long (L, S, S); IGNORE outside the slice.
        weak: uint8 (U, S, S, 3).
        strong: Two of uint8 (U, S, S, 3), before CutMix.
        ignore: bool (U, S, S), outside the slice.
        boxes: Two of bool (U, S, S), for CutMix.
        guide: float (U, classes, S, S), a stored guide's probabilities in the weak views; None without.
        origins: Where each of the U views comes from.
    """

    images: torch.Tensor
    labels: torch.Tensor
    weak: torch.Tensor | None = None
    strong: tuple[torch.Tensor, torch.Tensor] | None = None
    ignore: torch.Tensor | None = None
    boxes: tuple[torch.Tensor, torch.Tensor] | None = None
    guide: torch.Tensor | None = None
    origins: tuple[Origin, ...] | None = None

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        return type(self)(**{each.name: _moved(getattr(self, each.name), device) for each in fields(self)})


class StepBatches(Dataset):
    """Batch of each step; a map-style dataset over steps, so that worker processes change nothing.

    Args:
        labelled: Stacks with labels.
        unlabelled: Stacks whose labels are not looked at.
        options: Sizes, views, sampling and seed.
        rank: Of this process among several that train together; each draws its own batches.

    Raises:
        CohortError: No labelled slice, or no unlabelled one where the method needs them.
    """

    def __init__(
        self, labelled: Sequence[SliceStack], unlabelled: Sequence[SliceStack], options: UniMatchOptions, rank: int = 0
    ) -> None:
        if not labelled or (options.uses_unlabelled and not unlabelled):
            raise CohortError("There are no slices to train on.", remedy="Give labelled and unlabelled cases.")
        self.labelled, self.unlabelled, self.options, self.rank = list(labelled), list(unlabelled), options, rank
        self.rules = VIEWS[options.views]
        self.holding = _slices_of_each_class(self.labelled)

    def __len__(self) -> int:
        return self.options.steps

    def __getitem__(self, step: int) -> Batch:
        """Draw the batch of a step."""
        rng = named_rng(self.options.seed, "batch", step, self.rank)
        size = self.options.batch * (1 if self.options.uses_unlabelled else 2)
        images, labels = zip(*(self._labelled_view(rng) for _ in range(size)), strict=True)
        batch = {"images": torch.stack(images), "labels": torch.stack(labels)}
        if self.options.uses_unlabelled:
            drawn = [self._unlabelled_views(rng) for _ in range(self.options.batch)]
            weak, first, second, ignore, box_1, box_2, guide, origins = zip(*drawn, strict=True)
            batch |= {
                "weak": torch.stack(weak),
                "strong": (torch.stack(first), torch.stack(second)),
                "ignore": torch.stack(ignore),
                "boxes": (torch.stack(box_1), torch.stack(box_2)),
                "guide": None if guide[0] is None else torch.stack(guide),
                "origins": origins,
            }
        return Batch(**batch)

    def _labelled_view(self, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        stack, slice_, focus = self._choose_labelled(rng)
        view = self._weak(rng, stack, focus)
        label = warp(torch.from_numpy(stack.label[slice_].astype(np.float32))[None], view, "nearest")[0].long()
        label[outside(view, stack.shape)] = IGNORE
        return _picture(stack, slice_, view), label

    def _choose_labelled(self, rng: np.random.Generator) -> tuple[SliceStack, int, tuple[int, int] | None]:
        """A slice that holds a class drawn first, with a pixel of it; or any slice."""
        if self.holding and rng.random() < self.options.foreground:
            classes = sorted(self.holding)
            value = classes[rng.integers(len(classes))]
            number, slice_ = self.holding[value][rng.integers(len(self.holding[value]))]
            places = np.argwhere(self.labelled[number].label[slice_] == value)
            row, column = places[rng.integers(len(places))]
            return self.labelled[number], int(slice_), (int(row), int(column))
        stack = self.labelled[rng.integers(len(self.labelled))]
        return stack, int(rng.integers(len(stack.image))), None

    def _unlabelled_views(self, rng: np.random.Generator) -> tuple:
        case = int(rng.integers(len(self.unlabelled)))
        stack = self.unlabelled[case]
        slice_ = int(rng.integers(len(stack.image)))
        view = self._weak(rng, stack, None)
        weak = _picture(stack, slice_, view)
        strong = [torch.from_numpy(strong_view(rng, self.rules, weak.numpy())) for _ in range(2)]
        boxes = [torch.from_numpy(draw_cutmix_box(rng, view.size, self.rules.cutmix)) for _ in range(2)]
        guide = None
        if stack.guide is not None:
            guide = warp(torch.from_numpy(stack.guide[:, slice_].astype(np.float32) / 255), view)
        return weak, *strong, outside(view, stack.shape), *boxes, guide, Origin(case, slice_, view, stack.shape)

    def _weak(self, rng: np.random.Generator, stack: SliceStack, focus: tuple[int, int] | None) -> WeakView:
        return draw_weak_view(rng, self.rules, stack.shape, stack.pixel, self.options.size, focus)


def _picture(stack: SliceStack, slice_: int, view: WeakView) -> torch.Tensor:
    """The weak view as bytes (S, S, 3)."""
    channels = torch.from_numpy(stack.image[slice_].astype(np.float32)).movedim(-1, 0)
    return warp(channels, view).round().byte().movedim(0, -1).contiguous()


def _slices_of_each_class(stacks: Sequence[SliceStack]) -> dict[int, list[tuple[int, int]]]:
    """Class -> (stack, slice) of all slices that hold it; classes that no slice holds are left out."""
    holding: dict[int, list[tuple[int, int]]] = {}
    for number, stack in enumerate(stacks):
        for slice_, label in enumerate(stack.label):
            for value in np.unique(label):
                if value:
                    holding.setdefault(int(value), []).append((number, slice_))
    return holding


def _moved(value, device: torch.device | str):
    if isinstance(value, tuple):
        return tuple(_moved(each, device) for each in value)
    return value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
