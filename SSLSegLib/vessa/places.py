"""Where a view lies in its slice, and maps carried from frames of SAM2 to views and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F

from SSLSegLib.unimatch.views import Origin

__all__ = ["Places"]


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

    @classmethod
    def of(cls, origins: Sequence[Origin], device: torch.device | str = "cpu") -> Self:
        """Places of views of one size."""

        def stacked(arrays: Sequence[Any]) -> torch.Tensor:
            return torch.tensor(np.stack(arrays), dtype=torch.float32, device=device)

        return cls(
            cases=tuple(each.case for each in origins),
            slices=tuple(each.slice for each in origins),
            matrices=stacked([each.view.matrix for each in origins]),
            offsets=stacked([each.view.offset for each in origins]),
            shapes=stacked([each.shape for each in origins]),
            size=origins[0].view.size,
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
