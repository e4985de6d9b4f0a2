"""What slices are compared by: DINOv2's features (the paper), or the features of the SAM2 that is loaded anyway."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F

from SSLSegLib.errors import WeightsError
from SSLSegLib.files import sha256_of
from SSLSegLib.unimatch.checkpoints import load_weights
from SSLSegLib.unimatch.configuration import NETWORKS, NetworkConfiguration
from SSLSegLib.unimatch.network import SegmentationNetwork, embed
from SSLSegLib.unimatch.views import normalise
from SSLSegLib.vessa.pictures import pictures_to_frames, square

__all__ = ["DinoFeatures", "Features", "Sam2Features", "dino_features", "sam2_features"]

_AT_ONCE = 16


class Features(Protocol):
    """Pictures to unit vectors.

    Attributes:
        name: Says which features these are; a bank made with others cannot be searched with them.
    """

    name: str

    def __call__(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """uint8 pictures (J, I, 3) of any sizes to float32 (n, d), each of length 1."""


class DinoFeatures:
    """The class token of a DINOv2, normalised (paper 2, section 3.1: f_i).

    Args:
        network: Its encoder is used.
        name: Of the weights.
        side: Pictures are brought to this side first, a multiple of the patch.
        device: Where it runs.
    """

    def __init__(
        self, network: SegmentationNetwork, name: str, *, side: int = 224, device: torch.device | str = "cpu"
    ) -> None:
        if side % network.configuration.patch:
            raise ValueError(f"A side of {side} pixels is no multiple of {network.configuration.patch}.")
        self.encoder = network.encoder.to(device).eval()
        self.device, self.side = torch.device(device), side
        self.name = f"{name}@{side}"

    @torch.inference_mode()
    def __call__(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """See :class:`Features`."""
        vectors = []
        for start in range(0, len(pictures), _AT_ONCE):
            squares = [square(each, self.side) for each in pictures[start : start + _AT_ONCE]]
            images = normalise(torch.from_numpy(np.stack(squares)).to(self.device))
            tokens = embed(self.encoder.embeddings, images)
            for layer in self.encoder.encoder.layer:
                tokens = layer(tokens)
            vectors.append(F.normalize(self.encoder.layernorm(tokens)[:, 0].float(), dim=1).cpu().numpy())
        return np.concatenate(vectors)


class Sam2Features:
    """Features of SAM2's image encoder, averaged over a coarse grid: the choice where no DINOv2 is at hand.

    Averages over the whole picture would say what is seen but not where; a grid of 4 x 4 keeps the layout, which is
    what tells one level of the body from another. Each channel's mean over the grid is removed, since what all
    places share says nothing about the layout.

    Args:
        model: A ``SAM2Base`` in eval mode.
        name: Of the weights.
        grid: Cells along a side.
    """

    def __init__(self, model: torch.nn.Module, name: str, *, grid: int = 4) -> None:
        self.model, self.grid = model, grid
        self.name = f"{name}/grid{grid}"

    @torch.no_grad()  # not inference_mode: SAM2 keeps position tables that a later training needs
    def __call__(self, pictures: Sequence[np.ndarray]) -> np.ndarray:
        """See :class:`Features`."""
        device = next(self.model.parameters()).device
        vectors = []
        for start in range(0, len(pictures), _AT_ONCE):
            frames = pictures_to_frames(pictures[start : start + _AT_ONCE], self.model.image_size)
            top = self.model.forward_image(frames.to(device))["backbone_fpn"][-1]
            vectors.append(self.of_top_level(top))
        return np.concatenate(vectors)

    def of_top_level(self, top: torch.Tensor) -> np.ndarray:
        """The vectors of pictures whose image features (n, C, h, w) are known already."""
        cells = F.adaptive_avg_pool2d(top.float(), self.grid).flatten(2)
        cells = cells - cells.mean(2, keepdim=True)
        return F.normalize(cells.flatten(1), dim=1).cpu().numpy()


def sam2_features(model: torch.nn.Module) -> Sam2Features:
    """Features of a SAM2, named by its image encoder: stage 1 leaves that as it is, and so a bank valid."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.image_encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
    return Sam2Features(model, f"sam2:{digest.hexdigest()[:16]}")


def dino_features(path: Path | str, *, side: int = 224, device: torch.device | str = "cpu") -> DinoFeatures:
    """DINOv2 from a file: Meta's ``dinov2_vit*14_pretrain.pth``, Hugging Face's, or a UniMatch v2 checkpoint.

    The size (S, B or L) is found by trying, the shapes being checked strictly.

    Raises:
        WeightsError: The file fits none of the sizes.
    """
    path, problem = Path(path), None
    if not path.is_file():
        raise WeightsError(f"There is no file {path}.", remedy="Name a DINOv2 file, or leave it out.")
    for size in ("small", "base", "large"):
        network = _encoder_only(NETWORKS[size])
        try:
            load_weights(network, path)
        except WeightsError as error:
            problem = problem or error
            continue
        return DinoFeatures(network, f"dinov2-{size}:{sha256_of(path)[:16]}", side=side, device=device)
    raise problem


def _encoder_only(configuration: NetworkConfiguration) -> SegmentationNetwork:
    return SegmentationNetwork(configuration, 2)
