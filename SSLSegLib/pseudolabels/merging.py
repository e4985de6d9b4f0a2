"""From class probabilities to one label map: threshold, argmax, largest component, entropy.

Every class was segmented on its own (one class per SAM2 state), so the probabilities of the classes need not sum
to one and several may exceed the threshold in the same voxel. The likeliest class above the threshold wins.
"""

from collections.abc import Sequence

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

__all__ = ["MAXIMUM_ENTROPY", "binary_entropy", "keep_largest_component", "keep_largest_components", "merge_classes"]

MAXIMUM_ENTROPY = float(np.log(2.0))
"""The entropy of a fair coin in nats (0.693): the top of every uncertainty scale."""


def merge_classes(
    probabilities: NDArray[np.floating], threshold: float = 0.5, values: Sequence[int] | None = None
) -> NDArray[np.uint8]:
    """Label every voxel with its likeliest class where that class is likelier than the threshold.

    Args:
        probabilities: ``(classes, K, J, I)``, each in 0..1.
        threshold: A voxel is foreground where p > threshold, strictly: exactly at the threshold is background.
        values: Label value of each class; 1, 2, 3, ... when not given.

    Returns:
        ``uint8 (K, J, I)``, 0 = background. Between equal probabilities the class that comes first wins.

    Raises:
        ValueError: If the shape has no class axis, or values do not fit the classes.
    """
    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 4 or probabilities.shape[0] == 0:
        raise ValueError(f"Probabilities have the shape (classes, K, J, I), not {probabilities.shape}.")
    classes = probabilities.shape[0]
    labels_of_classes = np.arange(1, classes + 1) if values is None else np.asarray(values)
    if labels_of_classes.shape != (classes,):
        raise ValueError(f"{classes} classes need {classes} label values, not {labels_of_classes.size}.")
    if labels_of_classes.min() < 1 or labels_of_classes.max() > 255:
        raise ValueError("Label values lie between 1 and 255.")

    likeliest = probabilities.argmax(axis=0)
    foreground = probabilities.max(axis=0) > threshold
    return np.where(foreground, labels_of_classes.astype(np.uint8)[likeliest], np.uint8(0))


def keep_largest_component(mask: NDArray[np.bool_], connectivity: int = 26) -> NDArray[np.bool_]:
    """Keep the 3-D connected component with the most voxels; of equally large ones, the first in array order.

    Args:
        mask: ``(K, J, I)``; everything but 0 is foreground.
        connectivity: 26 (faces, edges and corners), 18 or 6.

    Returns:
        ``bool (K, J, I)``; all False when the mask is empty.
    """
    mask = np.asarray(mask) != 0
    if not mask.any():
        return mask
    components = cc3d.connected_components(np.ascontiguousarray(mask), connectivity=connectivity)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0  # the background is no component
    return components == sizes.argmax()


def keep_largest_components(
    labels: NDArray[np.uint8], values: Sequence[int], connectivity: int = 26
) -> NDArray[np.uint8]:
    """Keep the largest component of each of the given classes; other classes stay as they are.

    Args:
        labels: ``uint8 (K, J, I)``.
        values: The classes to clean. Leave paired organs (kidneys, lungs) out.
        connectivity: See :func:`keep_largest_component`.

    Returns:
        A new ``uint8 (K, J, I)``; what was removed is background.
    """
    cleaned = labels.copy()
    for value in values:
        of_class = labels == value
        cleaned[of_class & ~keep_largest_component(of_class, connectivity)] = 0
    return cleaned


def binary_entropy(probability: NDArray[np.floating]) -> NDArray[np.float32]:
    """Entropy of a voxel's own coin, ``-p ln p - (1-p) ln(1-p)``: 0 when sure, ln 2 at p = 0.5.

    Args:
        probability: Any shape, in 0..1.

    Returns:
        ``float32`` of the same shape, in nats.
    """
    probability = np.asarray(probability, dtype=np.float32)
    return entr(probability) + entr(np.float32(1.0) - probability)
