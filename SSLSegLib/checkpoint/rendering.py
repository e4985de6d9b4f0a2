"""Images of generated subjects by domain randomisation: contrast, texture, bias, partial volume, blur, noise."""

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from .anatomy import SHAPE
from .fields import smooth_fields

__all__ = ["FAMILIES", "Contrast", "draw_contrast", "related_contrast", "render"]


FAMILIES = ("mr", "ct", "inverted")


@dataclass(frozen=True)
class Contrast:
    """Brightness of each tissue and what the scanner adds.

    Args:
        means: (structures,) mean of each structure, 0 to 1.
        texture: (structures,) amplitude of smooth texture in each.
        bias: Standard deviation of the logarithm of the bias field.
        blur: In-plane blur, standard deviation in pixels (partial volume).
        thick: Average each slice with its neighbours.
        noise: Standard deviation of Rician noise.
        grain: Blur of the noise in pixels; 0 is white.
        gamma: Exponent of the final brightness curve.
    """

    means: np.ndarray
    texture: np.ndarray
    bias: float
    blur: float
    thick: bool
    noise: float
    grain: float
    gamma: float


def draw_contrast(
    rng: np.random.Generator, tissues: list[int], family: str | None = None, *, distinct: bool = False
) -> Contrast:
    """A random contrast: structures of one tissue share its mean up to a small difference; air is dark (or bright).

    Args:
        tissues: Tissue of each structure.
        family: One of :data:`FAMILIES`; drawn if not given (65, 25 and 10 %).
        distinct: Every structure has its own brightness, as if it were a tissue of its own: easy.
    """
    family = family or str(rng.choice(FAMILIES, p=[0.65, 0.25, 0.1]))
    tissue = np.asarray(tissues)
    means = rng.uniform(0.08, 1.0, tissue.max() + 1)
    if family == "ct":  # soft tissues in a narrow band, some far outside it
        means = 0.5 + 0.5 * (means - 0.5) * rng.uniform(0.3, 0.8)
        means[rng.random(means.size) < 0.15] = rng.choice([0.0, 1.0])
    means[0] = rng.uniform(0, 0.05)
    if family == "inverted":
        means = 1 - means
    # Usually exactly one brightness a tissue; sometimes structures drift apart a little.
    drift = rng.choice([0.0, 0.015, 0.05], p=[0.4, 0.35, 0.25])
    means = means[tissue] + drift * rng.normal(size=tissue.size)
    if distinct:
        means[1:] = rng.uniform(0.08, 1.0, tissue.size - 1)
    return Contrast(
        means=means,
        texture=np.abs(rng.normal(0, rng.choice([0.01, 0.04, 0.08]), tissue.size)),
        bias=float(abs(rng.normal(0, 0.15))),
        blur=float(rng.uniform(0.3, 1.3)),
        thick=bool(rng.random() < 0.3),
        noise=float(np.exp(rng.uniform(np.log(0.004), np.log(0.06)))),
        grain=float(rng.choice([0.0, 0.6, 1.0])),
        gamma=float(np.exp(0.25 * rng.normal())),
    )


def related_contrast(rng: np.random.Generator, contrast: Contrast, tissues: list[int], change: str) -> Contrast:
    """The contrast of another subject.

    Args:
        change: ``same`` (scanner differences only), ``shifted`` (as between phases of one sequence) or ``new``.
    """
    other = draw_contrast(rng, tissues)
    if change == "new":
        return other
    spread = 0.02 if change == "same" else 0.15
    tissue = np.asarray(tissues)
    shift = spread * rng.normal(size=tissue.max() + 1)
    return replace(
        contrast,
        means=contrast.means + shift[tissue] + 0.01 * rng.normal(size=tissue.size),
        noise=contrast.noise * float(np.exp(0.3 * rng.normal())),
        blur=contrast.blur * float(np.exp(0.2 * rng.normal())),
        bias=other.bias,
        gamma=contrast.gamma * float(np.exp(0.1 * rng.normal())),
    )


def _gaussian(images: torch.Tensor, sigma: float) -> torch.Tensor:
    if sigma <= 0.2:
        return images
    offsets = torch.arange(-2, 3, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = kernel / kernel.sum()
    images = F.conv2d(images[:, None], kernel.view(1, 1, 5, 1), padding=(2, 0))
    return F.conv2d(images, kernel.view(1, 1, 1, 5), padding=(0, 2))[:, 0]


def render(labels: torch.Tensor, slices: np.ndarray, contrast: Contrast, rng: np.random.Generator) -> torch.Tensor:
    """Images of some slices of one subject.

    Args:
        labels: uint8 (K, J, I) structures.
        slices: Slice indices (n,).
        contrast: The subject's contrast.
        rng: Source of texture, bias and noise.

    Returns:
        float32 (n, J, I), not yet scaled for display.
    """
    means = torch.tensor(contrast.means, dtype=torch.float32)
    amplitude = torch.tensor(contrast.texture, dtype=torch.float32)
    index = torch.as_tensor(np.asarray(slices))
    chosen = labels[index].int()
    images = means[chosen]
    if contrast.thick:
        above, below = (index + 1).clamp(max=SHAPE[0] - 1), (index - 1).clamp(min=0)
        images = 0.5 * images + 0.25 * (means[labels[above].int()] + means[labels[below].int()])
    # Texture and bias are fields of the whole volume (neighbouring slices look alike), made at a quarter of its size.
    small = tuple(size // 4 for size in SHAPE)
    fields = torch.cat([smooth_fields(rng, 1, small, (6, 12, 12)), smooth_fields(rng, 1, small, 2) * contrast.bias])
    position = (index.float() + 0.5) / 4 - 0.5
    lower = position.floor().clamp(0, small[0] - 2).long()
    weight = (position - lower).clamp(0, 1)[None, :, None, None]
    fields = fields[:, lower] * (1 - weight) + fields[:, lower + 1] * weight
    texture, bias = F.interpolate(fields, labels.shape[1:], mode="bilinear", align_corners=False)
    images = images + amplitude[chosen] * texture
    images = _gaussian(images, contrast.blur)
    images = images.clamp_(min=0).pow_(contrast.gamma) * bias.exp_()
    noise = torch.from_numpy(rng.standard_normal((2, *images.shape), dtype=np.float32)).flatten(0, 1)
    if contrast.grain:
        noise = _gaussian(noise, contrast.grain) * (1 + 2 * contrast.grain)
    real, imaginary = (noise * contrast.noise).view(2, *images.shape)
    return ((images + real).square_() + imaginary.square_()).sqrt_()
