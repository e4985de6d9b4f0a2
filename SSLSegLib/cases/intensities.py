"""Scanner intensities to the grey levels 0..255 that SAM2 was trained on: a CT window, or percentiles for the rest."""

import numpy as np

from SSLSegLib.cases.cohort import Window
from SSLSegLib.cases.volume import Volume
from SSLSegLib.errors import CaseError

__all__ = ["display_bounds", "to_display_range", "zero_is_background"]

_PERCENTILES = (0.5, 99.5)


def to_display_range(volume: Volume, modality: str, window: Window | None = None) -> np.ndarray:
    """Grey levels of a volume, each channel for itself.

    CT: the window in Hounsfield units, the same grey for the same HU in every case. Otherwise the rule of MedSAM and
    of the official TFFS code: clip to the 0.5 and 99.5 percentile of the voxels > 0 of the whole volume, stretch to
    0..255, and keep voxels of exactly 0 (background) at 0. On data with negative values, such as z-scored images,
    "> 0" would leave out a part of the body: see :func:`zero_is_background` for what is done there.

    Args:
        volume: float32 (C, K, J, I).
        modality: "CT" or anything else.
        window: Level and width, for CT.

    Returns:
        float32 (C, K, J, I) in 0..255. A constant channel becomes 0.

    Raises:
        CaseError: CT without a window.
    """
    display = np.empty(volume.array.shape, np.float32)
    for channel, grey in zip(volume.array, display, strict=True):
        lower, upper, foreground_only = display_bounds(channel, modality, window)
        np.clip(channel, lower, upper, out=grey)
        if modality != "CT":
            lower, upper = float(grey.min()), float(grey.max())
        grey -= np.float32(lower)
        grey *= np.float32(255.0 / (upper - lower)) if upper > lower else np.float32(0)
        np.clip(grey, 0, 255, out=grey)
        if foreground_only:
            grey[channel == 0] = 0
    return display


def display_bounds(channel: np.ndarray, modality: str, window: Window | None = None) -> tuple[float, float, bool]:
    """What becomes black, what white, and whether voxels of exactly 0 are background.

    Args:
        channel: (K, J, I).
    """
    if modality == "CT":
        if window is None:
            raise CaseError(
                "CT needs a window to become grey levels.",
                remedy='add "window": {"level": 40, "width": 400} (soft tissue) to cohort.json.',
            )
        return window.level - window.width / 2, window.level + window.width / 2, False
    background = zero_is_background(channel)
    if background:
        body = channel[channel > 0] if channel.min() >= 0 else channel[channel != 0]
    else:
        body = channel
    if body.size == 0:
        return 0.0, 0.0, background
    lower, upper = np.percentile(body, _PERCENTILES)
    return float(lower), float(upper), background


def zero_is_background(channel: np.ndarray) -> bool:
    """Whether voxels of exactly 0 mean "nothing was measured here".

    Without negative values they do (the official rule: if there are none, or few, nothing is lost). With negative
    values 0 is an ordinary grey level of z-scored data, unless the outer border of the slices is mostly exactly 0:
    then the body was normalised alone and the rest left at 0.

    Args:
        channel: (K, J, I).
    """
    if channel.min() >= 0:
        return True
    border = (channel[:, 0], channel[:, -1], channel[:, :, 0], channel[:, :, -1])
    return sum(int((edge == 0).sum()) for edge in border) > sum(edge.size for edge in border) / 2
