"""A labelled volume as a template: everything that all insertions into all unlabelled volumes share.

A chain leaves the labelled block forwards or backwards. Both are described in *travel coordinates*: the block's
slices are 0..L-1 in the order in which the chain passes them, and the first unlabelled slice is L. A backward pass over
a block is a forward pass over its mirror image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F

from .attention import KeyValues
from .features import VolumeFeatures

__all__ = ["Direction", "LabelledTemplate", "Passed", "chosen_prompts", "masks_as_prompts"]

Direction = Literal["forward", "backward"]


class Passed(NamedTuple):
    """A frame that a chain has tracked: where (travel coordinate), its memory (N, M) and its pointer (C,)."""

    coordinate: int
    memory: torch.Tensor
    pointer: torch.Tensor


@dataclass(eq=False)
class LabelledTemplate:
    """Conditioning memories and pointers of one (labelled volume, class), for one in-plane size.

    They depend neither on the insertion position nor on the unlabelled images, but on the in-plane size of the
    unlabelled volume, to which the mask is resized first.

    Args:
        features: Image features of the labelled volume.
        in_plane: (rows, columns) of the unlabelled volumes it serves.
        prompted: Slices that carry a prompt, ascending.
        left_out: Labelled slices that are neither prompted nor tracked (only with a limit on conditioning slices).
        memories: (K, N, M), one per prompted slice.
        pointers: (K, C).
        histories: Tracked empty slices of the block by (direction, pointer limit, told their place).
        keys: Keys and values of the memories by layer, while the template is in use.
    """

    features: VolumeFeatures
    in_plane: tuple[int, int]
    prompted: list[int]
    left_out: frozenset[int]
    memories: torch.Tensor
    pointers: torch.Tensor
    histories: dict[tuple[Direction, int, bool], list[Passed]] = field(default_factory=dict)
    keys: list[KeyValues] | None = None

    @property
    def slices(self) -> int:
        """L, the number of slices of the labelled block."""
        return self.features.slices

    def coordinate(self, index: int, direction: Direction) -> int:
        """Travel coordinate of a labelled slice; its own inverse."""
        return index if direction == "forward" else self.slices - 1 - index

    def release(self) -> None:
        """Drop the projected keys; they are built again when needed."""
        self.keys = None


def masks_as_prompts(mask: torch.Tensor, in_plane: tuple[int, int], image_size: int) -> tuple[list[int], torch.Tensor]:
    """Slices to prompt, and their masks at the frame's size.

    The native mask is resized to the unlabelled volume's in-plane size (nearest) as in the official code, then to
    the frame (antialiased bilinear, at least 0.5) as in SAM2's predictor. A slice that is empty after the first step
    gets no prompt; one that becomes empty in the second is prompted with an empty mask: it says "no object here".

    Args:
        mask: bool (K, J, I).
        in_plane: (rows, columns) of the unlabelled volume.
        image_size: Side S of the frame.

    Returns:
        Slice indices, and float32 (n, 1, S, S).
    """
    resized = F.interpolate(mask[:, None].float(), size=in_plane, mode="nearest")
    slices = [int(index) for index in resized.flatten(1).any(dim=1).nonzero()]
    prompts = resized[slices]
    if in_plane != (image_size, image_size) and slices:
        size = (image_size, image_size)
        prompts = F.interpolate(prompts, size=size, mode="bilinear", align_corners=False, antialias=True)
        prompts = (prompts >= 0.5).float()
    return slices, prompts


def chosen_prompts(slices: Sequence[int], limit: int | None) -> list[int]:
    """At most ``limit`` of the slices, evenly spread, ends included."""
    if limit is None or len(slices) <= limit:
        return list(slices)
    if limit == 1:
        return [slices[len(slices) // 2]]
    step = (len(slices) - 1) / (limit - 1)
    return [slices[round(index * step)] for index in range(limit)]
