"""A small SAM2 with mild random weights, beside the stock predictor with the same weights, and volumes to track."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from SSLSegLib.tffs.reference import mild_weights
from SSLSegLib.weights.sam2_model import Sam2Configuration, build_sam2

sys.path.insert(0, str(Path(__file__).parent))  # helpers beside the tests


def small_configuration(
    *, hidden: int = 64, memory: int = 32, layers: int = 2, image_size: int = 128, **more
) -> Sam2Configuration:
    """Stock SAM 2.1 tiny at reduced width: the same classes and semantics in a hundredth of the time."""
    embed = hidden // 4
    trunk = {"embed_dim": embed}
    neck = {
        "d_model": hidden,
        "backbone_channel_list": [8 * embed, 4 * embed, 2 * embed, embed],
        "position_encoding": {"num_pos_feats": hidden},
    }
    layer = {
        "d_model": hidden,
        "dim_feedforward": 128,
        "self_attention": {"embedding_dim": hidden},
        "cross_attention": {"embedding_dim": hidden, "kv_in_dim": memory},
    }
    overrides = {
        "image_encoder": {"trunk": trunk, "neck": neck},
        "memory_attention": {"d_model": hidden, "num_layers": layers, "layer": layer},
        "memory_encoder": {
            "in_dim": hidden,
            "out_dim": memory,
            "position_encoding": {"num_pos_feats": memory},
            "mask_downsampler": {"embed_dim": hidden},
            "fuser": {"layer": {"dim": hidden}},
        },
        **more,
    }
    return Sam2Configuration(image_size=image_size, overrides=overrides)


@dataclass
class Pair:
    """The same weights twice: as the engine's model and as the stock predictor."""

    model: torch.nn.Module
    predictor: torch.nn.Module


def make_pair(configuration: Sam2Configuration, seed: int = 0) -> Pair:
    predictor = build_sam2(configuration, predictor=True)
    mild_weights(predictor, seed)
    model = build_sam2(configuration)
    model.load_state_dict(predictor.state_dict())
    return Pair(model, predictor)


@pytest.fixture(scope="session")
def pair() -> Pair:
    return make_pair(small_configuration())


@pytest.fixture(scope="session")
def other_pairs():
    """Pairs by configuration, built when asked for."""
    return lambda seed=0, **changes: make_pair(small_configuration(**changes), seed)


@dataclass
class Scan:
    """Frames (n, 3, S, S) and a mask bool (n, 40, 36) of a ball that wanders through the slices."""

    frames: torch.Tensor
    mask: torch.Tensor


@pytest.fixture(scope="session")
def scan():
    """scan(slices, empty=(...), seed=...): smooth random images and a mask that is empty on the given slices."""

    def make(slices: int, empty: tuple[int, ...] = (), seed: int = 0, image_size: int = 128) -> Scan:
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.randn(1, 3, slices + 1, 10, 10, generator=generator)
        size = (slices, image_size, image_size)
        frames = torch.nn.functional.interpolate(coarse, size=size, mode="trilinear")[0].transpose(0, 1) * 1.5
        z, y, x = torch.meshgrid(torch.arange(slices), torch.arange(40), torch.arange(36), indexing="ij")
        mask = (y - 20) ** 2 + (x - 15 - 0.5 * z) ** 2 < 90
        mask[list(empty)] = False
        return Scan(frames.contiguous(), mask)

    return make
