"""Augmentation of templates in stage 1 (paper 2, supplement 7), by Pillow on bytes."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

__all__ = ["TemplateRules", "augment_template"]


@dataclass(frozen=True)
class TemplateRules:
    """Ranges; the supplement names the operations and the crop's scale only.

    Args:
        flip: Probability of each of a horizontal and a vertical flip.
        rotation: Most degrees, either way.
        crop: Smallest and largest part of the area that a crop keeps (0.7 to 1 in the supplement).
        blur: Probability of a Gaussian blur. ("Random Gaussian": blur is what sharpening is paired with.)
        blur_sigma: Its range in pixels.
        sharpen: Probability of sharpening.
        sharpness: Its largest factor; 1 leaves the image as it is.
    """

    flip: float = 0.5
    rotation: float = 30.0
    crop: tuple[float, float] = (0.7, 1.0)
    blur: float = 0.3
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    sharpen: float = 0.3
    sharpness: float = 3.0


_TRIES = 8


def augment_template(
    rng: np.random.Generator, picture: np.ndarray, mask: np.ndarray, rules: TemplateRules | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Flip, turn, crop and resize back (image bilinear, mask nearest), then change the image's sharpness.

    A template whose mask left the picture says nothing: the places are drawn again, and after a few tries the
    template stays as it is.

    Args:
        rng: Random draws.
        picture: uint8 (J, I, 3).
        mask: bool (J, I), not empty.
        rules: Ranges.

    Returns:
        The same kinds and shapes.
    """
    rules = rules or TemplateRules()
    for _ in range(_TRIES):
        moved, drawn = _move(rng, picture, mask, rules)
        if drawn.any():
            return _sharpness(rng, moved, rules), drawn
    return _sharpness(rng, picture, rules), mask


def _move(
    rng: np.random.Generator, picture: np.ndarray, mask: np.ndarray, rules: TemplateRules
) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = mask.shape
    flips = [
        flip for flip in (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM) if rng.random() < rules.flip
    ]
    angle = rng.uniform(-rules.rotation, rules.rotation)
    side = float(np.sqrt(rng.uniform(*rules.crop)))
    height, width = max(1, round(side * rows)), max(1, round(side * columns))
    top, left = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))

    def moved(array: np.ndarray, filtering: Image.Resampling) -> np.ndarray:
        image = Image.fromarray(array)
        for flip in flips:
            image = image.transpose(flip)
        image = image.rotate(angle, resample=filtering)
        image = image.crop((left, top, left + width, top + height))
        return np.array(image.resize((columns, rows), filtering))

    drawn = moved(mask.astype(np.uint8) * 255, Image.Resampling.NEAREST) > 0
    return moved(picture, Image.Resampling.BILINEAR), drawn


def _sharpness(rng: np.random.Generator, picture: np.ndarray, rules: TemplateRules) -> np.ndarray:
    image = Image.fromarray(picture)
    if rng.random() < rules.blur:
        image = image.filter(ImageFilter.GaussianBlur(radius=rng.uniform(*rules.blur_sigma)))
    if rng.random() < rules.sharpen:
        image = ImageEnhance.Sharpness(image).enhance(rng.uniform(1.0, rules.sharpness))
    return np.array(image)
