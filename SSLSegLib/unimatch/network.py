"""The network of UniMatch v2: transformers' DINOv2 as encoder, a DPT head as decoder."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Dinov2Config, Dinov2Model
from transformers.models.dinov2.modeling_dinov2 import Dinov2Embeddings

from SSLSegLib.unimatch.configuration import NetworkConfiguration

__all__ = ["DptHead", "SegmentationNetwork", "complementary_masks"]

_POSITION_OFFSET = 0.1
"""DINOv2 asks for (patches + 0.1) / grid when it stretches its position embedding, and so shifts it slightly."""


class SegmentationNetwork(nn.Module):
    """Images to class logits at the images' size.

    Args:
        configuration: Sizes.
        classes: Number of outputs, the background included.
    """

    def __init__(self, configuration: NetworkConfiguration, classes: int) -> None:
        super().__init__()
        self.configuration = configuration
        self.classes = classes
        self.encoder = Dinov2Model(_encoder_configuration(configuration))
        # Of no use here: one is for masked pre-training.
        self.encoder.embeddings.mask_token.requires_grad_(False)
        self.decoder = DptHead(configuration, classes)

    def encode(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Four levels of patch features, (B, patches, hidden) each, of images (B, 3, H, W).

        Raises:
            ValueError: A side of the images is no multiple of the patch.
        """
        patch = self.configuration.patch
        if images.shape[-2] % patch or images.shape[-1] % patch:
            raise ValueError(f"Image sides must be multiples of {patch}, not {tuple(images.shape[-2:])}.")
        tokens = embed(self.encoder.embeddings, images)
        levels = []
        for number, layer in enumerate(self.encoder.encoder.layer):
            tokens = layer(tokens)
            if number in self.configuration.taps:
                levels.append(self.encoder.layernorm(tokens)[:, 1:])
        return levels

    def decode(self, levels: Sequence[torch.Tensor], size: tuple[int, int]) -> torch.Tensor:
        """Logits (B, classes, H, W) from the levels of images of that size."""
        patch = self.configuration.patch
        logits = self.decoder(levels, (size[0] // patch, size[1] // patch))
        return F.interpolate(logits, size, mode="bilinear", align_corners=True)

    def forward(self, images: torch.Tensor, channel_masks: torch.Tensor | None = None) -> torch.Tensor:
        """Segment images.

        Args:
            images: (B, 3, H, W), ImageNet-normalised.
            channel_masks: (B, hidden), multiplied to every patch of all four levels, see :func:`complementary_masks`.

        Returns:
            (B, classes, H, W) logits.
        """
        levels = self.encode(images)
        if channel_masks is not None:
            levels = [level * channel_masks[:, None] for level in levels]
        return self.decode(levels, tuple(images.shape[-2:]))


def complementary_masks(
    batch: int, channels: int, generator: torch.Generator | None = None, *, keep: float = 0.5
) -> tuple[torch.Tensor, torch.Tensor]:
    """Complementary Dropout: what one stream loses the other keeps, ``M x 2`` and ``(1 - M) x 2``.

    A random part of the batch keeps all channels in both streams, as in the official code (the paper leaves it out).

    Args:
        batch: Images B.
        channels: Feature channels.
        generator: A CPU generator.
        keep: The part of the batch that keeps all channels, rounded down.

    Returns:
        Two (B, channels), for the first and the second strong view.
    """
    first = 2.0 * torch.randint(0, 2, (batch, channels), generator=generator).float()
    second = 2.0 - first
    kept = torch.randperm(batch, generator=generator)[: int(batch * keep)]
    first[kept] = second[kept] = 1.0
    return first, second


class DptHead(nn.Module):
    """Dense prediction transformer: four levels of one resolution become a pyramid and are fused from coarse to fine.

    The output is 8 times as fine as the patches. Projections behind an upsampling are computed before it: a 1x1
    convolution and a bilinear interpolation (whose weights sum to one) can change places, at a quarter of the work.
    """

    def __init__(self, configuration: NetworkConfiguration, classes: int) -> None:
        super().__init__()
        widths, features = configuration.channels, configuration.features
        self.projections = nn.ModuleList(nn.Conv2d(configuration.hidden, width, 1) for width in widths)
        self.resizing = nn.ModuleList(
            [
                nn.ConvTranspose2d(widths[0], widths[0], 4, stride=4),
                nn.ConvTranspose2d(widths[1], widths[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(widths[3], widths[3], 3, stride=2, padding=1),
            ]
        )
        self.adapters = nn.ModuleList(nn.Conv2d(width, features, 3, padding=1, bias=False) for width in widths)
        self.fusions = nn.ModuleList(Fusion(features, joins=level < 3) for level in range(4))
        self.smooth = nn.Conv2d(features, features, 3, padding=1)
        self.classify = nn.Conv2d(features, classes, 1)

    def forward(self, levels: Sequence[torch.Tensor], grid: tuple[int, int]) -> torch.Tensor:
        """(B, classes, 8 x rows, 8 x columns) from four (B, rows x columns, hidden)."""
        pyramid = []
        for level, project, resize, adapt in zip(levels, self.projections, self.resizing, self.adapters, strict=True):
            # Tokens lie channels-last already; the convolutions stay in that layout.
            image = level.unflatten(1, grid).permute(0, 3, 1, 2)
            pyramid.append(adapt(resize(project(image))))
        path = self.fusions[3](pyramid[3], None, pyramid[2].shape[-2:])
        path = self.fusions[2](path, pyramid[2], pyramid[1].shape[-2:])
        path = self.fusions[1](path, pyramid[1], pyramid[0].shape[-2:])
        path = self.fusions[0](path, pyramid[0], (8 * grid[0], 8 * grid[1]))
        return self.classify(F.relu(self.smooth(path)))


class Fusion(nn.Module):
    """Add a finer level to what came from the coarser ones, refine, upsample."""

    def __init__(self, features: int, *, joins: bool) -> None:
        super().__init__()
        self.side = Residual(features) if joins else None
        self.main = Residual(features)
        self.out = nn.Conv2d(features, features, 1)

    def forward(self, path: torch.Tensor, finer: torch.Tensor | None, size: Sequence[int]) -> torch.Tensor:
        if finer is not None:
            path = path + self.side(finer)
        return F.interpolate(self.out(self.main(path)), tuple(size), mode="bilinear", align_corners=True)


class Residual(nn.Module):
    """Two convolutions, activated before, around which the input passes unchanged."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.second = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + self.second(F.relu(self.first(F.relu(image))))


def embed(embeddings: Dinov2Embeddings, images: torch.Tensor) -> torch.Tensor:
    """Class and patch tokens with their positions, interpolated as DINOv2's own code does.

    transformers stretches the position embedding to the exact size instead; both agree at the native size.
    """
    patches = embeddings.patch_embeddings(images)
    positions = embeddings.position_embeddings
    grid = int((positions.shape[1] - 1) ** 0.5)
    rows, columns = (side // embeddings.config.patch_size for side in images.shape[-2:])
    if (rows, columns) != (grid, grid):
        native = positions[:, 1:].unflatten(1, (grid, grid)).permute(0, 3, 1, 2).float()
        factors = tuple((patches_there + _POSITION_OFFSET) / grid for patches_there in (rows, columns))
        stretched = F.interpolate(native, scale_factor=factors, mode="bicubic")
        positions = torch.cat([positions[:, :1], stretched.flatten(2).transpose(1, 2).to(positions.dtype)], dim=1)
    first = embeddings.cls_token.expand(len(images), -1, -1)
    return torch.cat([first, patches], dim=1) + positions


def _encoder_configuration(configuration: NetworkConfiguration) -> Dinov2Config:
    return Dinov2Config(
        hidden_size=configuration.hidden,
        num_hidden_layers=configuration.layers,
        num_attention_heads=configuration.heads,
        image_size=configuration.grid * configuration.patch,
        patch_size=configuration.patch,
        layerscale_value=configuration.layer_scale,
        attn_implementation="sdpa",
    )
