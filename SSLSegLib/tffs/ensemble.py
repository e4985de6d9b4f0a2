"""The ensemble as a running sum: however many runs there are, two arrays are kept (Algorithm 2, lines 6 and 9)."""

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F

from .view import View

__all__ = ["ProbabilitySums", "joined"]


class ProbabilitySums:
    """Sums of p and p^2 over the runs of one (unlabelled case, class), in the in-plane grid of the unlabelled volume.

    Args:
        slices: Number of slices of the unlabelled volume.
        in_plane: (rows, columns) of the unlabelled volume.
        device: Where the sums live; None is the CPU.

    Attributes:
        total: Sum of p, float32 (slices, rows, columns).
        total_squared: Sum of p^2, the same shape.
        count: Number of runs that were added.
    """

    def __init__(self, slices: int, in_plane: tuple[int, int], device: torch.device | str | None = None) -> None:
        self.total = torch.zeros(slices, *in_plane, device=device)
        self.total_squared = torch.zeros_like(self.total)
        self.count = 0

    @property
    def slices(self) -> int:
        """Number of slices."""
        return self.total.shape[0]

    @property
    def in_plane(self) -> tuple[int, int]:
        """(rows, columns)."""
        return self.total.shape[1], self.total.shape[2]

    def add_slices(self, slices: list[int], probabilities: torch.Tensor) -> None:
        """Add one run's probabilities (n, rows, columns) at the given slices; a slice may occur more than once."""
        index = torch.tensor(slices, device=self.total.device)
        probabilities = probabilities.to(self.total.device, torch.float32)
        self.total.index_add_(0, index, probabilities)
        self.total_squared.index_add_(0, index, probabilities.square())

    def add(self, other: "ProbabilitySums") -> None:
        """Add all runs of ``other``."""
        self.total += other.total.to(self.total.device)
        self.total_squared += other.total_squared.to(self.total.device)
        self.count += other.count

    @property
    def mean(self) -> np.ndarray:
        """Mean probability over the runs, float32 (slices, rows, columns); zero before the first run."""
        return (self.total / max(self.count, 1)).cpu().numpy()

    @property
    def variance(self) -> np.ndarray:
        """Variance of the probability from run to run, float32 (slices, rows, columns)."""
        count = max(self.count, 1)
        mean = self.total.double() / count
        variance = self.total_squared.double() / count - mean.square()
        return variance.clamp_min(0.0).float().cpu().numpy()


def joined(runs: Iterable[tuple[View, ProbabilitySums]], shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The mean over all runs of all views of a volume, and the variance between them (Algorithm 2, line 9).

    Every voxel's mean is over the runs whose frames showed it; where none did it is zero. Between the slices of a view
    that leaves some out it is linear.

    Args:
        runs: Views, and the sums over the runs of each.
        shape: (K, J, I) of the volume.

    Returns:
        float32 of that shape each.
    """
    mean, variance = np.zeros((2, *shape), np.float32)
    count = np.zeros(shape, np.uint16)
    for view, sums in runs:
        box, step = view.box(shape), view.step(shape)
        for into, found in ((mean, sums.total), (variance, sums.total_squared)):
            into[box] += np.moveaxis(_between(found, step), 0, view.plane)
        count[box] += sums.count
    np.maximum(count, 1, out=count)
    mean /= count
    variance /= count
    variance -= np.square(mean)
    return mean, np.maximum(variance, 0, out=variance)


def _between(found: torch.Tensor, step: int) -> np.ndarray:
    """Maps (n, rows, columns) of every ``step``-th slice for all slices from the first to the last."""
    if step > 1:
        size = ((len(found) - 1) * step + 1, *found.shape[1:])
        found = F.interpolate(found[None, None], size, mode="trilinear", align_corners=True)[0, 0]
    return found.cpu().numpy()
