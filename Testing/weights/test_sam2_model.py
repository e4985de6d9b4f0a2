"""SAM2 as built here against sam2's own Hydra-based builder, and Hydra's global state left alone."""

import subprocess
import sys

import pytest
import torch

from SSLSegLib.errors import WeightsError
from SSLSegLib.weights.configuration import Sam2Configuration
from SSLSegLib.weights.sam2_model import build_sam2, place_sam2, resolved_configuration


def shapes(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_tiny_at_512_has_the_published_number_of_parameters_and_entries(tiny_model):
    assert sum(parameter.numel() for parameter in tiny_model.parameters()) == 38_962_498
    assert len(tiny_model.state_dict()) == 471
    assert tiny_model.image_size == 512
    assert not tiny_model.training
    assert type(tiny_model).__name__ == "SAM2Base"


def test_names_and_shapes_do_not_depend_on_the_image_size(tiny_model):
    assert shapes(build_sam2(Sam2Configuration(image_size=1024))) == shapes(tiny_model)


def test_medsam2_differs_from_the_stock_configuration_in_three_values_only():
    """The three of sam2.1_hiera_t512.yaml: image_size and both feat_sizes of the memory attention."""
    from omegaconf import OmegaConf

    def flat(values, path=""):
        pairs = values.items() if isinstance(values, dict) else enumerate(values)
        for key, value in pairs:
            if isinstance(value, dict | list) and not (isinstance(value, list) and all(map(is_plain, value))):
                yield from flat(value, f"{path}.{key}")
            else:
                yield f"{path}.{key}", value

    def is_plain(value):
        return not isinstance(value, dict | list)

    stock, medsam2 = (
        dict(flat(OmegaConf.to_container(resolved_configuration(Sam2Configuration(image_size=side)))))
        for side in (1024, 512)
    )
    assert {key: (stock[key], value) for key, value in medsam2.items() if stock[key] != value} == {
        ".image_size": (1024, 512),
        ".memory_attention.layer.self_attention.feat_sizes": ([64, 64], [32, 32]),
        ".memory_attention.layer.cross_attention.feat_sizes": ([64, 64], [32, 32]),
    }


_STOCK = """
import torch
from omegaconf import OmegaConf
import sam2.build_sam as stock
from SSLSegLib.weights.sam2_model import Sam2Configuration, build_sam2, resolved_configuration

builders = {False: stock.build_sam2, True: stock.build_sam2_video_predictor}
instantiate = stock.instantiate
composed = []

def recorded(configuration, **rest):  # what sam2's builder composed, as it hands it over
    composed.append(OmegaConf.to_container(configuration))
    return instantiate(configuration, **rest)

def recorded_only(configuration, **rest):
    composed.append(OmegaConf.to_container(configuration))
    return torch.nn.Identity()

def check(base, predictor, weights):
    stock.instantiate = recorded if weights else recorded_only
    torch.manual_seed(3)
    expected = builders[predictor](f"configs/sam2.1/{base}.yaml", device="cpu")
    theirs = composed.pop()
    if predictor:
        assert theirs.pop("fill_hole_area") == 8  # needs the compiled CUDA extension; left out on purpose
    configuration = Sam2Configuration(base=base)
    ours = OmegaConf.to_container(resolved_configuration(configuration, predictor=predictor))
    assert ours == theirs, (ours, theirs)
    if weights:
        torch.manual_seed(3)
        built = build_sam2(configuration, predictor=predictor)
        a, b = expected.state_dict(), built.state_dict()
        assert type(expected) is type(built)
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)

for base in ("sam2.1_hiera_t", "sam2.1_hiera_s", "sam2.1_hiera_b+", "sam2.1_hiera_l"):
    for predictor in (False, True):
        check(base, predictor, weights=base == "sam2.1_hiera_t" and not predictor)
print("equal")
"""


def test_stock_configurations_give_what_sam2s_own_builder_gives():
    """All four sizes compose to the same configuration, as base and as video predictor; for tiny, the class is
    the same and so, under one seed, are the random weights. sam2's builder needs Hydra's global state, hence the
    process of its own."""
    result = subprocess.run([sys.executable, "-c", _STOCK], capture_output=True, text=True)
    assert result.stdout.strip() == "equal", result.stderr


_HYDRA = """
import pathlib, sys
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

folder = pathlib.Path(sys.argv[1])
(folder / "mine.yaml").write_text("answer: 42")
initialize_config_dir(str(folder), version_base="1.3")
before = GlobalHydra.instance().hydra
from SSLSegLib.weights.sam2_model import Sam2Configuration, build_sam2
build_sam2(Sam2Configuration(image_size=128))
assert GlobalHydra.instance().hydra is before
assert compose("mine").answer == 42
print("untouched")
"""


def test_an_application_that_uses_hydra_itself_keeps_its_state(tmp_path):
    result = subprocess.run([sys.executable, "-c", _HYDRA, str(tmp_path)], capture_output=True, text=True)
    assert result.stdout.strip() == "untouched", result.stderr


def test_hydras_global_state_is_not_needed(small, monkeypatch):
    import sam2  # noqa: F401  initialises it
    from hydra.core.global_hydra import GlobalHydra

    monkeypatch.setattr(GlobalHydra.instance(), "hydra", None)
    build_sam2(small)
    assert not GlobalHydra.instance().is_initialized()


def test_building_for_the_cpu_does_not_touch_a_gpu(small, monkeypatch):
    """With a GPU that cannot be used (here: one that is only claimed) sam2's own classes fail at construction."""
    from sam2.modeling.sam.transformer import RoPEAttention

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    if torch.version.cuda is None:
        with pytest.raises(AssertionError, match="CUDA"):
            RoPEAttention(embedding_dim=64, num_heads=1)
    model = build_sam2(small)
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    assert torch.cuda.is_available()


def test_placing_moves_the_tables_outside_the_buffers_too(small):
    model = place_sam2(build_sam2(small), "meta")  # the one other device that every machine has
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}
    tables = [module.freqs_cis for module in model.modules() if hasattr(module, "freqs_cis")]
    assert len(tables) == 4
    assert {table.device.type for table in tables} == {"meta"}


def test_an_unknown_base_and_unfitting_overrides_say_what_is_wrong():
    with pytest.raises(WeightsError, match="no configuration named 'sam3'"):
        build_sam2(Sam2Configuration(base="sam3"))
    with pytest.raises(WeightsError, match="no configuration named"):
        build_sam2(Sam2Configuration(base="../sam2/sam2_hiera_t"))
    with pytest.raises(WeightsError, match="num_tentacles"):
        build_sam2(Sam2Configuration(overrides={"num_tentacles": 8}))
    with pytest.raises(ValueError, match="multiple of 32"):
        Sam2Configuration(image_size=500)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_the_model_computes_the_same_on_cuda(small):
    _compare_with_cpu(small, "cuda")


@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="no Apple GPU")
def test_the_model_computes_the_same_on_mps(small):
    _compare_with_cpu(small, "mps")


def _compare_with_cpu(configuration, device):
    model = build_sam2(configuration)
    frames = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model.forward_image(frames)["vision_features"]
        computed = place_sam2(model, device).forward_image(frames.to(device))["vision_features"].cpu()
    torch.testing.assert_close(computed, expected, atol=1e-3, rtol=1e-3)
