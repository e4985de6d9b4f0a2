"""Weak and strong views of slices, and CutMix. A view is drawn once and then applied to image, label and guide alike.

The colour operations are Pillow's, on bytes, as in the official code (torchvision calls the same functions).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageFilter

from SSLSegLib.cases.frames import IMAGENET_MEAN, IMAGENET_STD

__all__ = [
    "VIEWS",
    "Origin",
    "ViewRules",
    "WeakView",
    "cutmix",
    "draw_cutmix_box",
    "draw_weak_view",
    "normalise",
    "outside",
    "strong_view",
    "warp",
]

ViewName = Literal["official", "medical"]


@dataclass(frozen=True)
class ViewRules:
    """Ranges that views are drawn from.

    Args:
        scale: Of the weak view: smallest and largest enlargement.
        rotation: Most degrees, either way.
        flip: Probability of a left-right flip.
        jitter: Probability that a strong view changes brightness, contrast, saturation and hue.
        brightness, contrast, saturation: Factors are drawn from 1 ± this.
        hue: Turns of the colour circle, ± this.
        grayscale: Probability of losing all colour.
        gamma: Largest exponent (smallest: its inverse), drawn on a log scale; 1 for none.
        blur: Probability of a Gaussian blur.
        blur_sigma: Its range in pixels.
        cutmix: Probability of a box.
    """

    scale: tuple[float, float] = (0.5, 2.0)
    rotation: float = 0.0
    flip: float = 0.5
    jitter: float = 0.8
    brightness: float = 0.5
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 0.25
    grayscale: float = 0.2
    gamma: float = 1.0
    blur: float = 0.5
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    cutmix: float = 0.5


VIEWS: dict[str, ViewRules] = {
    "official": ViewRules(),
    # Left and right are not the same in a patient, colours are channels that mean something, and scanners turn and
    # scale little; in exchange the grey curve bends.
    "medical": ViewRules(scale=(0.75, 1.4), rotation=10.0, flip=0.0, saturation=0.0, hue=0.0, grayscale=0.0, gamma=1.5),
}


@dataclass(frozen=True)
class WeakView:
    """From pixels of the view to pixels of the slice: ``slice = matrix @ view + offset`` for (row, column) centres.

    Args:
        matrix: (2, 2).
        offset: (2,).
        size: Rows and columns of the view.
    """

    matrix: np.ndarray
    offset: np.ndarray
    size: int


@dataclass(frozen=True)
class Origin:
    """Where an unlabelled view comes from, for a guide that looks at whole slices.

    Args:
        case: Its place among the unlabelled cases.
        slice: Index of the slice.
        view: What was cut out of it.
        shape: Rows and columns of the slice.
    """

    case: int
    slice: int
    view: WeakView
    shape: tuple[int, int]


def draw_weak_view(
    rng: np.random.Generator,
    rules: ViewRules,
    shape: tuple[int, int],
    pixel: tuple[float, float],
    size: int,
    focus: tuple[int, int] | None = None,
) -> WeakView:
    """Draw scale, crop, turn and flip.

    A slice that is larger than the view at the drawn scale is cropped at random, a smaller one padded at the bottom
    and on the right, as in the official code.

    Args:
        rng: Random draws.
        rules: Their ranges.
        shape: Rows and columns of the slice.
        pixel: Pixels of the slice per pixel of a view at scale 1, along rows and columns (anisotropic pixels, or
            scanners of different resolution, come out alike).
        size: Side of the view.
        focus: A pixel (row, column) of the slice that the crop is to hold, unless a turn carries it out.
    """
    scale = rng.uniform(*rules.scale)
    steps = np.array(pixel) / scale
    room = np.array(shape) / steps - size  # how far the crop can move, in pixels of the view
    start = np.zeros(2)
    for axis in range(2):
        low, high = 0.0, max(room[axis], 0.0)
        if focus is not None and high > 0:
            there = (focus[axis] + 0.5) / steps[axis]
            low, high = max(low, there - size + 1), min(high, there)
        start[axis] = rng.uniform(low, high) if high > low else max(low, 0.0)
    angle = np.radians(rng.uniform(-rules.rotation, rules.rotation))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if rng.random() < rules.flip:
        turn = turn @ np.diag([1.0, -1.0])
    centre = np.full(2, size / 2)
    # View pixel (centre at index + 0.5) -> turned about the view's middle -> moved by the crop -> slice pixel.
    matrix = np.diag(steps) @ turn
    offset = np.diag(steps) @ (start + centre - turn @ centre)
    return WeakView(matrix, offset, size)


def warp(channels: torch.Tensor, view: WeakView, mode: Literal["bilinear", "nearest"] = "bilinear") -> torch.Tensor:
    """Apply a weak view.

    Args:
        channels: float (C, rows, columns).
        view: Where each pixel comes from.
        mode: ``bilinear`` for grey levels and probabilities, ``nearest`` for labels.

    Returns:
        (C, size, size); 0 where the view leaves the slice.
    """
    points, shape = _source_points(view), np.array(channels.shape[-2:])
    # grid_sample counts (x, y) from -1 at the first pixel's outer edge to 1 at the last one's.
    grid = torch.from_numpy((2 * points / shape - 1)[..., ::-1].astype(np.float32).copy())
    # Edge pixels reach half a pixel outwards; what lies beyond the slice is then set to 0.
    warped = F.grid_sample(channels[None], grid[None], mode=mode, padding_mode="border", align_corners=False)[0]
    return warped * ~outside(view, tuple(shape))


def outside(view: WeakView, shape: tuple[int, int]) -> torch.Tensor:
    """Which pixels of a view lie outside the slice, (size, size) bool."""
    points = _source_points(view)
    return torch.from_numpy(((points < 0) | (points > np.array(shape))).any(-1))


def strong_view(rng: np.random.Generator, rules: ViewRules, image: np.ndarray) -> np.ndarray:
    """Change grey levels and colours, never places.

    Args:
        image: uint8 (rows, columns, 3).

    Returns:
        uint8 of the same shape.
    """
    picture = Image.fromarray(image)
    if rng.random() < rules.jitter:
        changes = [
            (ImageEnhance.Brightness, rules.brightness),
            (ImageEnhance.Contrast, rules.contrast),
            (ImageEnhance.Color, rules.saturation),
            (None, rules.hue),
        ]
        for index in rng.permutation(len(changes)):
            enhancer, strength = changes[index]
            if not strength:
                continue
            if enhancer is None:
                picture = _turn_hue(picture, rng.uniform(-strength, strength))
            else:
                picture = enhancer(picture).enhance(rng.uniform(max(0.0, 1 - strength), 1 + strength))
    if rules.gamma > 1:
        exponent = float(np.exp(rng.uniform(-1, 1) * np.log(rules.gamma)))
        table = np.rint(255 * (np.arange(256) / 255) ** exponent).astype(int).tolist()
        picture = picture.point(table * 3)
    if rules.grayscale and rng.random() < rules.grayscale:
        picture = picture.convert("L").convert("RGB")
    if rng.random() < rules.blur:
        picture = picture.filter(ImageFilter.GaussianBlur(radius=rng.uniform(*rules.blur_sigma)))
    return np.array(picture)


def draw_cutmix_box(rng: np.random.Generator, size: int, probability: float = 0.5) -> np.ndarray:
    """A box of 2 to 40 % of the area with sides 0.3 to 3.3 to one, (size, size) bool; empty at times."""
    box = np.zeros((size, size), bool)
    if rng.random() >= probability:
        return box
    area = rng.uniform(0.02, 0.4) * size * size
    while True:
        ratio = rng.uniform(0.3, 1 / 0.3)
        columns, rows = int(np.sqrt(area / ratio)), int(np.sqrt(area * ratio))
        row, column = rng.integers(0, size, 2)
        if row + rows <= size and column + columns <= size:
            box[row : row + rows, column : column + columns] = True
            return box


def cutmix(batch: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """Paste into each sample the box of its partner: the batch in reverse order (sample i takes from B - 1 - i).

    Args:
        batch: (B, H, W) or (B, C, H, W): images, labels, confidences or ignore masks.
        boxes: (B, H, W) bool.
    """
    return torch.where(boxes if batch.ndim == 3 else boxes[:, None], batch.flip(0), batch)


def normalise(images: torch.Tensor) -> torch.Tensor:
    """uint8 (B, H, W, 3) to ImageNet-normalised float32 (B, 3, H, W)."""
    mean = images.new_tensor(IMAGENET_MEAN, dtype=torch.float32)
    deviation = images.new_tensor(IMAGENET_STD, dtype=torch.float32)
    return ((images.float() / 255 - mean) / deviation).movedim(-1, 1)


def _source_points(view: WeakView) -> np.ndarray:
    """Where in the slice each pixel of a view lies, (size, size, 2) rows and columns, pixel centres at + 0.5."""
    centres = np.arange(view.size) + 0.5
    pixels = np.stack(np.meshgrid(centres, centres, indexing="ij"), -1)
    return pixels @ view.matrix.T + view.offset


def _turn_hue(picture: Image.Image, turns: float) -> Image.Image:
    hue, saturation, value = picture.convert("HSV").split()
    turned = (np.asarray(hue).astype(np.int16) + int(turns * 255)) % 256
    return Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value)).convert("RGB")
