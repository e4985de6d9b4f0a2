"""Where a grid of voxels lies in the patient: the KJI shape and the 4x4 IJK-to-RAS matrix."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    import SimpleITK

__all__ = ["Geometry"]

# Files and SimpleITK speak LPS (DICOM), Slicer and this library RAS: the first two axes change sign.
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
# NIfTI keeps its matrix in float32, so equal grids differ by about 1e-4 voxels; one voxel in a hundred is harmless.
_TOLERANCE_IN_VOXELS = 0.01


@dataclass(frozen=True, eq=False)
class Geometry:
    """A voxel grid in the patient.

    Args:
        shape: Number of slices, rows and columns (K, J, I).
        ijk_to_ras: (4, 4) float64, takes (i, j, k, 1) to RAS millimetres. Kept as a read-only copy.

    Raises:
        ValueError: Where the shape is not three positive numbers or the matrix is singular, not finite or not 4x4.

    Example:
        >>> Geometry((10, 20, 30), np.diag([0.5, 0.5, 3.0, 1.0])).spacing
        (3.0, 0.5, 0.5)
    """

    shape: tuple[int, int, int]
    ijk_to_ras: np.ndarray

    def __post_init__(self) -> None:
        shape = tuple(int(size) for size in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"A grid has three positive sizes (slices, rows, columns), not {self.shape}.")
        matrix = np.array(self.ijk_to_ras, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise ValueError("IJK to RAS is a 4x4 matrix of finite numbers.")
        if not np.array_equal(matrix[3], [0, 0, 0, 1]) or abs(np.linalg.det(matrix)) < 1e-12:
            raise ValueError("IJK to RAS must be invertible, with (0, 0, 0, 1) as its last row.")
        matrix.flags.writeable = False
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "ijk_to_ras", matrix)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres from voxel to voxel along (k, j, i)."""
        lengths = np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)
        return float(lengths[2]), float(lengths[1]), float(lengths[0])

    @property
    def in_plane(self) -> tuple[int, int]:
        """Rows and columns of a slice."""
        return self.shape[1], self.shape[2]

    @property
    def voxel_volume(self) -> float:
        """Cubic millimetres of a voxel."""
        return float(abs(np.linalg.det(self.ijk_to_ras[:3, :3])))

    def displacement(self, other: "Geometry") -> float:
        """Largest distance in mm between the same voxel of this grid in the two positions (over the grid's corners)."""
        last = np.array(self.shape[::-1], dtype=np.float64) - 1
        corners = np.array([[i, j, k, 1.0] for i in (0, last[0]) for j in (0, last[1]) for k in (0, last[2])])
        return float(np.linalg.norm((corners @ (self.ijk_to_ras - other.ijk_to_ras).T)[:, :3], axis=1).max())

    def matches(self, other: "Geometry", tolerance: float | None = None) -> bool:
        """Whether both are the same grid: equal shape, and no voxel lies further off than the tolerance.

        Args:
            tolerance: Millimetres; a hundredth of the smallest spacing by default.
        """
        if self.shape != other.shape:
            return False
        allowed = _TOLERANCE_IN_VOXELS * min(self.spacing) if tolerance is None else tolerance
        # A single slice (row, column) says nothing about the step to the next one by its corners alone.
        steps = np.abs(self.ijk_to_ras[:3, :3] - other.ijk_to_ras[:3, :3]).max()
        return bool(self.displacement(other) <= allowed and steps <= allowed)

    def difference(self, other: "Geometry") -> str:
        """What differs, in words for an error message; empty where :meth:`matches` holds."""
        if self.matches(other):
            return ""
        if self.shape != other.shape:
            return f"{_sizes(self.shape)} voxels instead of {_sizes(other.shape)} (slices x rows x columns)"
        if not np.allclose(self.spacing, other.spacing, rtol=1e-3):
            return f"spacing {_lengths(self.spacing)} mm instead of {_lengths(other.spacing)} mm"
        axes = [
            matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0) for matrix in (self.ijk_to_ras, other.ijk_to_ras)
        ]
        angle = np.degrees(np.arccos(np.clip((axes[0] * axes[1]).sum(axis=0), -1, 1))).max()
        if angle > 0.05:
            return f"axes turned by up to {angle:.1f} degrees"
        return f"voxels up to {self.displacement(other):.3g} mm apart"

    def offset_in(self, other: "Geometry") -> tuple[int, int, int] | None:
        """Where this grid starts in ``other`` as whole voxels (k, j, i), or None where the grids do not coincide.

        Crops of a grid (a ``.seg.nrrd`` may hold one) can then be put back without resampling.
        """
        between = np.linalg.inv(other.ijk_to_ras) @ self.ijk_to_ras
        offset = np.round(between[:3, 3])
        aligned = np.eye(4)
        aligned[:3, 3] = offset
        moved = Geometry(self.shape, other.ijk_to_ras @ aligned)
        return (int(offset[2]), int(offset[1]), int(offset[0])) if self.matches(moved) else None

    @classmethod
    def from_lps(
        cls,
        size: tuple[int, ...],
        spacing: tuple[float, ...],
        origin: tuple[float, ...],
        direction: tuple[float, ...],
    ) -> Self:
        """From ITK's terms: size and spacing in (i, j, k), origin and direction columns in LPS."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.reshape(direction, (3, 3)) * np.asarray(spacing)
        matrix[:3, 3] = origin
        return cls(tuple(size[::-1]), _LPS_TO_RAS @ matrix)

    @classmethod
    def from_sitk(cls, image: "SimpleITK.Image | SimpleITK.ImageFileReader") -> Self:
        """The grid of a three-dimensional SimpleITK image, or of a reader that has read a header."""
        return cls.from_lps(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    def place(self, image: "SimpleITK.Image") -> None:
        """Give a SimpleITK image of this shape this position."""
        lps = _LPS_TO_RAS @ self.ijk_to_ras
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())

    def to_sitk(self, array: np.ndarray) -> "SimpleITK.Image":
        """A SimpleITK image of a (K, J, I) array in this grid.

        Raises:
            ValueError: Where the array is of another shape.
        """
        import SimpleITK

        if array.shape != self.shape:
            raise ValueError(f"An array of {array.shape} does not fill a grid of {self.shape}.")
        image = SimpleITK.GetImageFromArray(array)
        self.place(image)
        return image

    @property
    def orientation(self) -> str:
        """Where the axes i, j, k point, to the nearest anatomical direction: ``LPS`` is left, posterior, superior."""
        import SimpleITK

        lps = _LPS_TO_RAS @ self.ijk_to_ras
        direction = lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0)
        return SimpleITK.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(direction.ravel().tolist())

    def along(self, orientation: str) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
        """Shape and spacing along (K, J, I) of what :meth:`reoriented` gives."""
        axis = {letter: number for number, ends in enumerate(("LR", "PA", "SI")) for letter in ends}
        own = {axis[letter]: number for number, letter in enumerate(reversed(self.orientation))}
        order = [own[axis[letter]] for letter in reversed(orientation)]
        return tuple(self.shape[number] for number in order), tuple(self.spacing[number] for number in order)

    def reoriented(self, array: np.ndarray, orientation: str) -> np.ndarray:
        """A (K, J, I) array of this grid with its axes exchanged and turned round to another orientation."""
        import SimpleITK

        if orientation == self.orientation:
            return array
        return SimpleITK.GetArrayFromImage(SimpleITK.DICOMOrient(self.to_sitk(array), orientation))


def _sizes(shape: tuple[int, int, int]) -> str:
    return " x ".join(str(size) for size in shape)


def _lengths(spacing: tuple[float, float, float]) -> str:
    return " x ".join(f"{length:.4g}" for length in spacing)
