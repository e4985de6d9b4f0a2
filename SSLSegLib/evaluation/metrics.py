"""Dice, IoU and surface distances in millimetres, each definition with its name.

Empty masks, the same rules everywhere:

- both empty: Dice and IoU 1, distances 0 (whoever averages should say how many these were);
- one empty: Dice and IoU 0, distances NaN, to be left out of averages and counted; or, on request, the image
  diagonal, which punishes a missed organ as the largest distance the image allows.

A surface voxel is a foreground voxel with a background voxel among its six face neighbours; beyond the image
lies background. Distances run between the centres of surface voxels.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_erosion
from scipy.spatial import KDTree

__all__ = [
    "EmptyDistance",
    "Hausdorff95Variant",
    "SurfaceDistances",
    "assd",
    "dice",
    "hausdorff",
    "hausdorff95",
    "image_diagonal",
    "iou",
    "miou_with_background",
    "surface_distances",
]

Hausdorff95Variant = Literal["pooled", "larger"]
"""``pooled``: the percentile of both directions' distances together (as MedPy).
``larger``: the larger of the two directions' percentiles (as MONAI and DeepMind's surface-distance)."""

EmptyDistance = Literal["nan", "diagonal"]
"""What a distance is when exactly one of the masks is empty."""


def dice(prediction: ArrayLike, reference: ArrayLike) -> float:
    """Dice coefficient ``2 |P and R| / (|P| + |R|)`` of two masks of equal shape, in 0..1."""
    prediction, reference = _masks(prediction, reference)
    total = np.count_nonzero(prediction) + np.count_nonzero(reference)
    return 1.0 if total == 0 else 2.0 * np.count_nonzero(prediction & reference) / total


def iou(prediction: ArrayLike, reference: ArrayLike) -> float:
    """Foreground intersection over union (Jaccard) ``|P and R| / |P or R|`` of two masks of equal shape, in 0..1."""
    prediction, reference = _masks(prediction, reference)
    union = np.count_nonzero(prediction | reference)
    return 1.0 if union == 0 else np.count_nonzero(prediction & reference) / union


def miou_with_background(prediction: ArrayLike, reference: ArrayLike) -> float:
    """Mean of the foreground's and the background's IoU.

    The background fills most of a scan, so this number is far higher than :func:`iou` and must not be compared with
    it; some papers print it as "IoU".
    """
    prediction, reference = _masks(prediction, reference)
    return 0.5 * (iou(prediction, reference) + iou(~prediction, ~reference))


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances in mm from each surface voxel of one mask to the nearest surface voxel of the other.

    Attributes:
        to_reference: One distance per surface voxel of the prediction, float64.
        to_prediction: One distance per surface voxel of the reference, float64.
        when_one_is_empty: The distance that stands for all when exactly one mask is empty.
    """

    to_reference: NDArray[np.float64]
    to_prediction: NDArray[np.float64]
    when_one_is_empty: float = float("nan")

    def hausdorff(self) -> float:
        """The largest distance from any surface voxel to the other surface."""
        return self._over_both(lambda one, other: max(one.max(), other.max()))

    def hausdorff95(self, variant: Hausdorff95Variant = "pooled") -> float:
        """The 95th percentile of the distances; see :data:`Hausdorff95Variant`."""
        if variant == "pooled":
            return self._over_both(lambda one, other: np.percentile(np.concatenate([one, other]), 95))
        if variant == "larger":
            return self._over_both(lambda one, other: max(np.percentile(one, 95), np.percentile(other, 95)))
        raise ValueError(f"The variants of HD95 are 'pooled' and 'larger', not {variant!r}.")

    def assd(self) -> float:
        """Average symmetric surface distance: the mean over the surface voxels of both masks."""
        return self._over_both(lambda one, other: np.concatenate([one, other]).mean())

    def _over_both(self, reduce) -> float:
        if self.to_reference.size == 0 and self.to_prediction.size == 0:
            return 0.0
        if self.to_reference.size == 0 or self.to_prediction.size == 0:
            return self.when_one_is_empty
        return float(reduce(self.to_reference, self.to_prediction))


def surface_distances(
    prediction: ArrayLike, reference: ArrayLike, spacing: ArrayLike, empty: EmptyDistance = "nan"
) -> SurfaceDistances:
    """Surface distances of two masks, from which every distance metric follows.

    Args:
        prediction: ``(K, J, I)``; everything but 0 is foreground.
        reference: The same shape.
        spacing: Voxel size in mm along each array axis, ``(k, j, i)``.
        empty: What the distances are when exactly one of the masks is empty.

    Raises:
        ValueError: If the shapes differ, or the spacing does not fit them or is not positive.
    """
    prediction, reference = _masks(prediction, reference)
    spacing = np.asarray(spacing, dtype=np.float64)
    if spacing.shape != (prediction.ndim,) or not (spacing > 0).all():
        raise ValueError(f"A mask of {prediction.ndim} axes needs {prediction.ndim} positive spacings, not {spacing}.")
    stands_in = image_diagonal(prediction.shape, spacing) if empty == "diagonal" else float("nan")
    surface_of_prediction = _surface_points(prediction, spacing)
    surface_of_reference = _surface_points(reference, spacing)
    if len(surface_of_prediction) == 0 or len(surface_of_reference) == 0:
        return SurfaceDistances(np.zeros(len(surface_of_prediction)), np.zeros(len(surface_of_reference)), stands_in)
    # Surfaces are thin: trees over their voxels cost far less than distance maps of the whole volume.
    return SurfaceDistances(
        to_reference=KDTree(surface_of_reference).query(surface_of_prediction)[0],
        to_prediction=KDTree(surface_of_prediction).query(surface_of_reference)[0],
        when_one_is_empty=stands_in,
    )


def hausdorff(prediction: ArrayLike, reference: ArrayLike, spacing: ArrayLike, empty: EmptyDistance = "nan") -> float:
    """Hausdorff distance in mm: the largest distance from a surface voxel to the other mask's surface.

    Arguments as for :func:`surface_distances`.
    """
    return surface_distances(prediction, reference, spacing, empty).hausdorff()


def hausdorff95(
    prediction: ArrayLike,
    reference: ArrayLike,
    spacing: ArrayLike,
    variant: Hausdorff95Variant = "pooled",
    empty: EmptyDistance = "nan",
) -> float:
    """95th percentile Hausdorff distance in mm; other arguments as for :func:`surface_distances`.

    Args:
        variant: See :data:`Hausdorff95Variant`.
    """
    return surface_distances(prediction, reference, spacing, empty).hausdorff95(variant)


def assd(prediction: ArrayLike, reference: ArrayLike, spacing: ArrayLike, empty: EmptyDistance = "nan") -> float:
    """Average symmetric surface distance in mm; arguments as for :func:`surface_distances`."""
    return surface_distances(prediction, reference, spacing, empty).assd()


def image_diagonal(shape: tuple[int, ...], spacing: ArrayLike) -> float:
    """Distance in mm between the centres of opposite corner voxels: the largest distance two voxels can have."""
    return float(np.linalg.norm((np.asarray(shape) - 1) * np.asarray(spacing, dtype=np.float64)))


def _masks(prediction: ArrayLike, reference: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    prediction, reference = np.asarray(prediction), np.asarray(reference)
    if prediction.shape != reference.shape:
        raise ValueError(f"The masks have different shapes: {prediction.shape} and {reference.shape}.")
    return prediction.astype(bool, copy=False), reference.astype(bool, copy=False)


def _surface_points(mask: NDArray[np.bool_], spacing: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centres of the surface voxels in mm, ``(n, axes)``."""
    box = _bounding_box(mask)
    if box is None:
        return np.empty((0, mask.ndim))
    # Cropping changes nothing: what lies outside the box is background, as erosion takes it to be.
    cropped = mask[box]
    surface = np.argwhere(cropped & ~binary_erosion(cropped))
    return (surface + [side.start for side in box]) * spacing


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    box = []
    for axis in range(mask.ndim):
        occupied = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        if occupied.size == 0:
            return None
        box.append(slice(int(occupied[0]), int(occupied[-1]) + 1))
    return tuple(box)
