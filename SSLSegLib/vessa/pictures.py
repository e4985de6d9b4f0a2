"""Slices as pictures, as frames of SAM2, and as overlays for the language model."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from SSLSegLib.cases.frames import slices_to_frames
from SSLSegLib.unimatch.slices import colours

__all__ = ["GREEN", "masks_to_frames", "overlay", "picture_of", "pictures_to_frames", "square"]

GREEN = (0, 255, 0)


def picture_of(display: np.ndarray, index: int) -> np.ndarray:
    """One slice of display values (C, K, J, I) in 0..255 as uint8 (J, I, 3)."""
    return colours(display[:, index : index + 1])[:, 0].astype(np.uint8).transpose(1, 2, 0)


def pictures_to_frames(pictures: Sequence[np.ndarray], side: int) -> torch.Tensor:
    """uint8 pictures (J, I, 3) of any sizes to SAM2's frames, float32 (n, 3, side, side), as TFFS makes them."""
    frames = [slices_to_frames(picture.transpose(2, 0, 1)[:, None].astype(np.float32), side) for picture in pictures]
    return torch.cat(frames) if frames else torch.empty(0, 3, side, side)


def masks_to_frames(masks: Sequence[np.ndarray], side: int) -> torch.Tensor:
    """Masks (J, I) to the frame, binary float32 (n, 1, side, side), as SAM2's predictor does it.

    A mask so thin that averaging would remove all of it keeps every frame pixel that it touches.
    """
    framed = torch.zeros(len(masks), 1, side, side)
    for index, mask in enumerate(masks):
        whole = torch.from_numpy(np.ascontiguousarray(mask, np.float32))[None, None]
        small = F.interpolate(whole, (side, side), mode="bilinear", align_corners=False, antialias=True) >= 0.5
        if whole.any() and not small.any():
            small = F.adaptive_max_pool2d(whole, (side, side)) > 0
        framed[index] = small[0]
    return framed


def square(picture: np.ndarray, side: int) -> np.ndarray:
    """A picture uint8 (J, I, 3) as uint8 (side, side, 3), bicubic; the aspect ratio is not kept, as for SAM2."""
    if picture.shape[:2] == (side, side):
        return picture
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))


def overlay(picture: np.ndarray, mask: np.ndarray, alpha: float = 0.5) -> np.ndarray:
    """A picture uint8 (J, I, 3) with a mask (J, I) drawn over it in green.

    The alpha is not in the paper; at one half both the grey levels and the mask stay visible.
    """
    drawn = picture.astype(np.float32)
    inside = np.asarray(mask, bool)
    drawn[inside] = (1 - alpha) * drawn[inside] + alpha * np.array(GREEN, np.float32)
    return drawn.round().astype(np.uint8)
