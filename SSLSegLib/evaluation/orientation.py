"""How to turn a slice of a volume so that it hangs as in a reading room."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from SSLSegLib.cases.geometry import Geometry

__all__ = ["SliceOrientation"]

_POSITIVE = "RAS"
_NEGATIVE = "LPI"
_PLANES = ("sagittal", "coronal", "axial")


@dataclass(frozen=True)
class SliceOrientation:
    """The turn from (row, column) to the picture: patient's right on the viewer's left, anterior or superior on top.

    Slices are shown as they were stored, never resampled; the nearest anatomical directions name the edges of oblique
    ones.

    Attributes:
        transpose: Whether rows and columns change places first.
        flip_rows: Whether the picture is then turned upside down.
        flip_columns: Whether it is mirrored.
        left: Letter (R L A P S I) at the left edge.
        right: At the right edge.
        top: At the top.
        bottom: At the bottom.
        plane: ``axial``, ``coronal`` or ``sagittal``, the nearest.
        aspect: Height of a picture's pixel over its width.
        pixel_mm: (height, width) of a picture's pixel.
        axis_letter: R, A or S: the direction slices are counted along for :meth:`position`.
    """

    transpose: bool
    flip_rows: bool
    flip_columns: bool
    left: str
    right: str
    top: str
    bottom: str
    plane: str
    pixel_mm: tuple[float, float]
    axis_letter: str
    _ijk_to_ras: NDArray[np.float64]
    _center: NDArray[np.float64]

    @classmethod
    def of(cls, geometry: Geometry) -> Self:
        """The orientation of the slices along K of a volume."""
        matrix = np.asarray(geometry.ijk_to_ras, dtype=np.float64)
        directions = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
        # Each of R, A, S belongs to one of i, j, k, also at 45 degrees where the nearest one is not unique.
        axes, indices = linear_sum_assignment(-np.abs(directions))
        ras_of = dict(zip(indices.tolist(), axes.tolist(), strict=True))  # voxel axis -> RAS axis
        # Horizontal is the first of (R, A) that lies in the plane; to the right and down run L, P and I.
        transpose = ras_of[0] > ras_of[1]
        across, down = (1, 0) if transpose else (0, 1)
        _, spacing_j, spacing_i = geometry.spacing
        pixel = (spacing_i, spacing_j) if transpose else (spacing_j, spacing_i)
        return cls(
            transpose=transpose,
            flip_rows=bool(directions[ras_of[down], down] > 0),
            flip_columns=bool(directions[ras_of[across], across] > 0),
            left=_POSITIVE[ras_of[across]],
            right=_NEGATIVE[ras_of[across]],
            top=_POSITIVE[ras_of[down]],
            bottom=_NEGATIVE[ras_of[down]],
            plane=_PLANES[ras_of[2]],
            pixel_mm=pixel,
            axis_letter=_POSITIVE[ras_of[2]],
            _ijk_to_ras=matrix,
            _center=(np.asarray(geometry.shape, dtype=np.float64)[::-1] - 1) / 2,
        )

    @property
    def aspect(self) -> float:
        """Height of a picture's pixel over its width, for ``imshow(aspect=...)``."""
        return self.pixel_mm[0] / self.pixel_mm[1]

    def picture(self, array: NDArray) -> NDArray:
        """Turn a ``(J, I)`` slice, or every slice of a ``(K, J, I)`` volume."""
        if self.transpose:
            array = np.swapaxes(array, -1, -2)
        if self.flip_rows:
            array = array[..., ::-1, :]
        if self.flip_columns:
            array = array[..., ::-1]
        return array

    def position(self, index: int) -> str:
        """Where a slice lies, as 3D Slicer's slice view says it: ``S 12.5 mm`` at the middle of the slice."""
        ras = self._ijk_to_ras @ [self._center[0], self._center[1], index, 1.0]
        value = ras["RAS".index(self.axis_letter)]
        letter = self.axis_letter if value >= 0 else _NEGATIVE["RAS".index(self.axis_letter)]
        return f"{letter} {abs(value):.1f} mm"
