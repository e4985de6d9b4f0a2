"""Voxels between arrays and VTK's images: what takes long of showing a volume, and touches no scene."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from SSLSegLib.cases.geometry import Geometry

__all__ = ["ReadyImage", "copied_voxels", "image_data", "ready_image", "voxels_of"]

_PERCENTILES = (0.1, 99.9)  # those of Slicer's own automatic window and level
_SAMPLE = 500_000  # voxels that are enough to find them


@dataclass(frozen=True, eq=False)
class ReadyImage:
    """An image that a volume node only has to take.

    Attributes:
        image: The ``vtkImageData``, in the order of ``geometry``.
        geometry: The grid.
        shown: Darkest and brightest value of the display, by Slicer's rule for automatic window and level.
    """

    image: Any
    geometry: Geometry
    shown: tuple[float, float]


def ready_image(array: np.ndarray, geometry: Geometry, *, integers: bool = True) -> ReadyImage:
    """Make an array ready for a volume node; a thread may do it.

    Args:
        array: (K, J, I).
        geometry: Its grid.
        integers: Keep whole numbers as int16 where that is exact.

    Raises:
        ValueError: The array does not fill the grid.
    """
    if array.shape != geometry.shape:
        raise ValueError(f"An array of {array.shape} does not fill a grid of {geometry.shape}.")
    return ReadyImage(image_data(_compact(array) if integers else array), geometry, _display_range(array))


def image_data(array: np.ndarray) -> Any:
    """A ``vtkImageData`` with a copy of a (K, J, I) array; VTK's x is the last axis.

    Its scalars are called ``ImageScalars``, VTK's own name: Slicer's DICOM exporter takes others for no voxels.
    """
    import vtk
    from vtk.util.numpy_support import get_vtk_array_type

    image = vtk.vtkImageData()
    image.SetDimensions(*array.shape[::-1])
    image.AllocateScalars(get_vtk_array_type(array.dtype), 1)
    np.copyto(voxels_of(image), array)  # leaves the interpreter to other threads while it copies
    return image


def voxels_of(vtk_image: Any) -> np.ndarray:
    """The voxels of a ``vtkImageData`` as (K, J, I), not copied."""
    from vtk.util.numpy_support import vtk_to_numpy

    return vtk_to_numpy(vtk_image.GetPointData().GetScalars()).reshape(vtk_image.GetDimensions()[::-1])


def copied_voxels(vtk_image: Any) -> np.ndarray:
    """The voxels as they are now, (K, J, I), of the image's own type: what happens to the image later is not seen."""
    return voxels_of(vtk_image).copy()


def _compact(array: np.ndarray) -> np.ndarray:
    """The same values as int16 where that is exact."""
    low, high = array.min(), array.max()
    if np.isfinite([low, high]).all() and low >= -32768 and high <= 32767:
        whole = array.astype(np.int16)
        if np.array_equal(whole, array):
            return whole
    return array


def _display_range(array: np.ndarray) -> tuple[float, float]:
    values = array.reshape(-1)[:: max(1, array.size // _SAMPLE)]
    values = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, _PERCENTILES))
    return (low, high) if high > low else (low, low + 1)
