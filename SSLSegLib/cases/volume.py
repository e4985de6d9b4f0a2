"""Voxels with the grid they lie in."""

from dataclasses import dataclass

import numpy as np

from SSLSegLib.cases.geometry import Geometry

__all__ = ["LabelMap", "Volume"]


@dataclass(frozen=True, eq=False)
class Volume:
    """An image. ``array`` is float32 (C, K, J, I), one channel first index."""

    array: np.ndarray
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.array.ndim != 4 or self.array.shape[1:] != self.geometry.shape:
            raise ValueError(f"An image is (C, K, J, I) on its grid {self.geometry.shape}, not {self.array.shape}.")


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A segmentation. ``array`` is uint8 (K, J, I), 0 = background, other values those of the cohort's classes."""

    array: np.ndarray
    geometry: Geometry

    def __post_init__(self) -> None:
        if self.array.shape != self.geometry.shape or self.array.dtype != np.uint8:
            raise ValueError(
                f"A label map is uint8 (K, J, I) on its grid {self.geometry.shape}, "
                f"not {self.array.dtype} {self.array.shape}."
            )
