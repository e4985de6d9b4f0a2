"""Models with random weights, built once: the tiny SAM2 at 512 px and a much smaller one."""

import pytest
import torch

from SSLSegLib.weights.configuration import Sam2Configuration
from SSLSegLib.weights.sam2_model import build_sam2

SMALL = Sam2Configuration(
    base="sam2.1_hiera_t",
    image_size=128,
    overrides={
        "image_encoder": {
            "trunk": {"embed_dim": 32, "stages": [1, 2, 3, 1], "global_att_blocks": [5]},
            "neck": {
                "d_model": 64,
                "backbone_channel_list": [256, 128, 64, 32],
                "position_encoding": {"num_pos_feats": 64},
            },
        },
        "memory_attention": {
            "d_model": 64,
            "num_layers": 2,
            "layer": {
                "d_model": 64,
                "dim_feedforward": 128,
                "self_attention": {"embedding_dim": 64},
                "cross_attention": {"embedding_dim": 64, "kv_in_dim": 32},
            },
        },
        "memory_encoder": {
            "in_dim": 64,
            "out_dim": 32,
            "position_encoding": {"num_pos_feats": 32},
            "mask_downsampler": {"embed_dim": 64},
            "fuser": {"layer": {"dim": 64}},
        },
    },
)


@pytest.fixture(scope="session")
def small() -> Sam2Configuration:
    """The tiny configuration reduced to about two million parameters."""
    return SMALL


@pytest.fixture(scope="session")
def small_model(small):
    torch.manual_seed(1)
    return build_sam2(small)


@pytest.fixture(scope="session")
def tiny_model():
    torch.manual_seed(2)
    return build_sam2(Sam2Configuration(image_size=512))


@pytest.fixture(scope="session")
def official_file(tiny_model, tmp_path_factory):
    """A file in the format of MedSAM2's: the state dict under ``model``, extras of training beside it."""
    path = tmp_path_factory.mktemp("official") / "MedSAM2_2411.pt"
    torch.save({"model": tiny_model.state_dict(), "epoch": 7, "steps": {"train": 3}}, path)
    return path


@pytest.fixture(autouse=True)
def weights_folder(tmp_path, monkeypatch):
    """An empty weights folder of the test's own instead of the user's."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("SSLSEG_WEIGHTS", str(folder))
    return folder
