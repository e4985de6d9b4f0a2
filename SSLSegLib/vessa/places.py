"""Where a view lies in its slice, and maps carried from frames of SAM2 to views and back."""

import copy
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F

from SSLSegLib.unimatch.data import StepBatches
from SSLSegLib.unimatch.views import WeakView

__all__ = ["LocatedBatches", "Places"]


class LocatedBatches(StepBatches):
    """Batches that say where their unlabelled views come from, in the field that a stored guide's maps would have.

    The draws of a view are repeated from the same state of the generator: which case, which slice, which view.
    """

    def _unlabelled_views(self, rng: np.random.Generator) -> tuple:
        before = copy.deepcopy(rng)
        *views, _ = super()._unlabelled_views(rng)
        case = int(before.integers(len(self.unlabelled)))
        stack = self.unlabelled[case]
        slice_ = int(before.integers(len(stack.image)))
        view = self._weak(before, stack, None)
        return (*views, Places.row(case, slice_, view, stack.shape))


@dataclass(frozen=True)
class Places:
    """Where U views lie.

    Args:
        cases: Number of the case among the unlabelled ones.
        slices: Index of the slice.
        matrices, offsets: (U, 2, 2) and (U, 2), from pixels of the view to pixels of the slice; see
            :class:`~SSLSegLib.unimatch.views.WeakView`.
        shapes: (U, 2), rows and columns of the slices.
        size: Side of the views.
    """

    cases: tuple[int, ...]
    slices: tuple[int, ...]
    matrices: torch.Tensor
    offsets: torch.Tensor
    shapes: torch.Tensor
    size: int

    @staticmethod
    def row(case: int, slice_: int, view: WeakView, shape: tuple[int, int]) -> torch.Tensor:
        """One view as numbers."""
        numbers = [case, slice_, *view.matrix.ravel(), *view.offset, *shape, view.size]
        return torch.tensor([float(each) for each in numbers], dtype=torch.float32)

    @classmethod
    def of(cls, rows: torch.Tensor) -> Self:
        """Views from their numbers, (U, 11)."""
        return cls(
            cases=tuple(int(each) for each in rows[:, 0].tolist()),
            slices=tuple(int(each) for each in rows[:, 1].tolist()),
            matrices=rows[:, 2:6].reshape(-1, 2, 2),
            offsets=rows[:, 6:8],
            shapes=rows[:, 8:10],
            size=int(rows[0, 10]),
        )

    def to_views(self, maps: torch.Tensor, which: list[int]) -> torch.Tensor:
        """Logits of whole slices (n, 1, h, w), of any resolution, as probabilities in views (n, 1, size, size).

        Args:
            maps: Each covers the whole of its slice.
            which: View of each map. Outside the slice the probability is 0.
        """
        scale = self._grid(maps) / self.shapes[which]
        matrices = self.matrices[which] * scale[:, :, None]
        offsets = self.offsets[which] * scale
        points = _points(matrices, offsets, (self.size, self.size))
        inside = ((points >= 0) & (points <= self._grid(maps))).all(-1)[:, None]
        return _sampled(maps, points, "border").sigmoid() * inside

    def to_slices(self, maps: torch.Tensor, which: list[int], side: int) -> torch.Tensor:
        """Maps in views (n, 1, size, size) on a grid (n, 1, side, side) over the whole slice; 0 where the view ends.

        Args:
            maps: In views.
            which: View of each map.
            side: Of the grid.
        """
        scale = side / self.shapes[which]
        inverse = torch.linalg.inv(self.matrices[which])
        matrices = inverse / scale[:, None, :]
        offsets = -(inverse @ self.offsets[which][:, :, None])[:, :, 0]
        points = _points(matrices, offsets, (side, side))
        inside = ((points >= 0) & (points <= self.size)).all(-1)[:, None]
        return _sampled(maps, points, "border") * inside

    @staticmethod
    def _grid(maps: torch.Tensor) -> torch.Tensor:
        return maps.new_tensor(maps.shape[-2:])


def _points(matrices: torch.Tensor, offsets: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Where each pixel comes from, (n, rows, columns, 2); pixel centres lie at + 0.5."""
    rows, columns = (torch.arange(each, device=matrices.device) + 0.5 for each in size)
    pixels = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1)
    return torch.einsum("rcj,nij->nrci", pixels, matrices) + offsets[:, None, None]


def _sampled(maps: torch.Tensor, points: torch.Tensor, padding: str) -> torch.Tensor:
    grid = (2 * points / maps.new_tensor(maps.shape[-2:]) - 1).flip(-1)
    return F.grid_sample(maps, grid.to(maps.dtype), mode="bilinear", padding_mode=padding, align_corners=False)
