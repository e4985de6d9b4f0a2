"""Smooth random fields on the unit cube, the raw material of generated anatomy, deformations, bias and texture."""

from functools import lru_cache

import numpy as np
import torch

__all__ = ["coordinates", "smooth_fields"]


@lru_cache(maxsize=256)
def _spline_matrix(size: int, cells: int) -> torch.Tensor:
    """Uniform cubic B-spline basis, (size, cells + 3): rows sum to one."""
    position = (torch.arange(size, dtype=torch.float64) + 0.5) / size * cells
    knot = position.floor().clamp(max=cells - 1)
    u = position - knot
    weights = torch.stack([(1 - u) ** 3, 3 * u**3 - 6 * u**2 + 4, -3 * u**3 + 3 * u**2 + 3 * u + 1, u**3], dim=1) / 6
    matrix = torch.zeros(size, cells + 3, dtype=torch.float64)
    matrix.scatter_(1, knot.long()[:, None] + torch.arange(4), weights)
    return matrix.float()


def smooth_fields(
    rng: np.random.Generator, count: int, shape: tuple[int, int, int], cells: int | tuple[int, int, int]
) -> torch.Tensor:
    """Independent Gaussian random fields without creases: cubic B-splines over white noise.

    Args:
        rng: Source of the noise.
        count: Number of fields.
        shape: (K, J, I) of the result.
        cells: Spline cells along each axis; the field's features are about ``size / cells`` voxels wide.

    Returns:
        float32 ``(count, K, J, I)``, about zero mean and unit variance.
    """
    cells = (cells,) * 3 if isinstance(cells, int) else cells
    noise = torch.from_numpy(rng.standard_normal((count, *(c + 3 for c in cells)), dtype=np.float32))
    k, j, i = (_spline_matrix(size, c) for size, c in zip(shape, cells, strict=True))
    field = torch.einsum("ia,nkja->nkji", i, noise)
    field = torch.einsum("jb,nkbi->nkji", j, field)
    field = torch.einsum("kc,ncji->nkji", k, field)
    return field / 0.35  # variance of the spline average in three dimensions


def coordinates(shape: tuple[int, int, int]) -> torch.Tensor:
    """Voxel centres in [-1, 1] as float32 ``(3, K, J, I)``, in the order (k, j, i)."""
    axes = [(torch.arange(size, dtype=torch.float32) + 0.5) / size * 2 - 1 for size in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))
