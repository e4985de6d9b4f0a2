"""Slices to the frames that SAM2 sees, and its logits back to the grid of the slices."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "iterate_frames", "logits_to_grid", "slices_to_frames"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def slices_to_frames(display: np.ndarray, image_size: int, indices: Sequence[int] | None = None) -> "torch.Tensor":
    """Turn slices into normalised RGB frames, exactly as the official code does.

    Each slice is cut to uint8 (truncation), made RGB, resized to a square by Pillow's bicubic filter with antialiasing
    (the aspect ratio is not kept, nothing is padded), divided by 255 and normalised by ImageNet's mean and deviation.
    A slice that has the size already is used as it is, without rounding.

    One channel is repeated; three are red, green and blue; of two, the third colour is their mean; of more than
    three, each colour is the mean of a third of the channels, in their order.

    Args:
        display: (C, K, J, I) in 0..255, see :func:`~SSLSegLib.cases.intensities.to_display_range`.
        image_size: Side S of the frames.
        indices: Which slices, in this order; all by default. Only these take memory.

    Returns:
        float32 (n, 3, S, S).
    """
    import torch

    chosen = range(display.shape[1]) if indices is None else indices
    frames = torch.empty((len(chosen), 3, image_size, image_size), dtype=torch.float32)
    for frame, index in zip(frames, chosen, strict=True):
        frame.copy_(torch.from_numpy(_frame(display[:, index], image_size)))
    return frames


def iterate_frames(
    display: np.ndarray, image_size: int, batch: int = 1
) -> Iterator[tuple[Sequence[int], "torch.Tensor"]]:
    """All slices in order, ``batch`` at a time: their indices and their frames (n, 3, S, S)."""
    for start in range(0, display.shape[1], batch):
        indices = range(start, min(start + batch, display.shape[1]))
        yield indices, slices_to_frames(display, image_size, indices)


def logits_to_grid(logits: "torch.Tensor", in_plane: tuple[int, int]) -> "torch.Tensor":
    """Low-resolution mask logits straight to rows and columns of the source (bilinear, never by way of S x S).

    Args:
        logits: (n, h, w).
        in_plane: Rows and columns (J, I).

    Returns:
        (n, J, I) of the same type.
    """
    from torch.nn.functional import interpolate

    return interpolate(logits[:, None], size=in_plane, mode="bilinear", align_corners=False)[:, 0]


def _frame(channels: np.ndarray, image_size: int) -> np.ndarray:
    """One slice (C, J, I) to float32 (3, S, S)."""
    from PIL import Image

    colours = _colours(channels)
    resized = []
    for colour in colours:
        if colour.shape == (image_size, image_size):
            resized.append(colour.astype(np.float32))
            continue
        # Pillow filters every channel of an RGB picture alone, so three grey ones (or one) give the same bytes.
        picture = Image.fromarray(colour.astype(np.uint8))
        small = picture.resize((image_size, image_size), Image.Resampling.BICUBIC)
        resized.append(np.asarray(small, dtype=np.float32))
    frame = np.stack(resized if len(resized) == 3 else resized * 3)
    frame /= 255
    frame -= np.array(IMAGENET_MEAN, np.float32)[:, None, None]
    frame /= np.array(IMAGENET_STD, np.float32)[:, None, None]
    return frame


def _colours(channels: np.ndarray) -> list[np.ndarray]:
    """One picture (grey) or three (red, green, blue), (J, I) each, in 0..255."""
    if len(channels) <= 1 or len(channels) == 3:
        return list(channels)
    if len(channels) == 2:
        return [channels[0], channels[1], channels.mean(axis=0)]
    return [group.mean(axis=0) for group in np.array_split(channels, 3)]
