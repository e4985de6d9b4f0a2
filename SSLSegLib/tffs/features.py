"""Image features of a volume: every slice goes through the image encoder once per job, whatever is tracked later."""

from collections.abc import Sequence
from pathlib import Path

import torch

from .network import Levels

__all__ = ["VolumeFeatures"]


class VolumeFeatures:
    """Feature levels of all slices of one volume.

    They live on the compute device, or in a folder of memory-mapped files when many volumes must be at hand.

    Args:
        slices: Number of slices.
        device: Where :meth:`levels` delivers them.
        folder: Keep them in files there instead of in memory. The files are the caller's to delete.
    """

    def __init__(self, slices: int, device: torch.device, folder: Path | None = None) -> None:
        self.slices = slices
        self.device = device
        self._folder = folder
        self._stored: list[torch.Tensor] = []

    def __len__(self) -> int:
        return self.slices

    def store(self, start: int, levels: Levels) -> None:
        """Put the features of slices start, start + 1, ... in their place."""
        if not self._stored:
            self._stored = [self._allocate(index, level) for index, level in enumerate(levels)]
        for stored, level in zip(self._stored, levels, strict=True):
            stored[start : start + level.shape[0]] = level.to(stored.device)

    def levels(self, slices: Sequence[int]) -> Levels:
        """Feature levels of some slices, finest first, on the compute device."""
        first = slices[0]
        if list(slices) == list(range(first, first + len(slices))):
            chosen = [stored[first : first + len(slices)] for stored in self._stored]
        else:
            chosen = [stored[list(slices)] for stored in self._stored]
        return tuple(level.to(self.device, non_blocking=True) for level in chosen)

    @property
    def nbytes(self) -> int:
        """Bytes that the features take, in memory or on disk."""
        return sum(stored.numel() * stored.element_size() for stored in self._stored)

    def _allocate(self, index: int, level: torch.Tensor) -> torch.Tensor:
        shape = (self.slices, *level.shape[1:])
        if self._folder is None:
            return torch.empty(shape, dtype=level.dtype, device=self.device)
        self._folder.mkdir(parents=True, exist_ok=True)
        count = torch.Size(shape).numel()
        path = str(self._folder / f"level{index}.bin")
        return torch.from_file(path, shared=True, size=count, dtype=level.dtype).view(shape)
