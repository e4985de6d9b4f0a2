"""Loading SAM2 from real files with random weights: the official format, safetensors, and every kind of wrong file."""

import shutil

import pytest
import torch
from safetensors.torch import save_file

from SSLSegLib.errors import WeightsError
from SSLSegLib.files import sha256_of
from SSLSegLib.weights.configuration import Sam2Configuration
from SSLSegLib.weights.device import DeviceError
from SSLSegLib.weights.loading import load_sam2
from SSLSegLib.weights.reading import read_state_dict
from SSLSegLib.weights.saving import register_bundled, save_sam2


def same_tensors(model, state):
    loaded = model.state_dict()
    return loaded.keys() == state.keys() and all(torch.equal(loaded[name], state[name]) for name in state)


def test_a_file_in_the_official_format_loads_by_its_catalogue_name(official_file, weights_folder, tiny_model):
    shutil.copy(official_file, weights_folder)
    loaded = load_sam2("medsam2_2411")
    assert same_tensors(loaded.model, tiny_model.state_dict())
    assert (loaded.name, loaded.image_size, loaded.configuration_from) == ("MedSAM2_2411", 512, "catalogue")
    assert loaded.sha256 == sha256_of(official_file)
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.device == torch.device("cpu")


def test_the_folder_argument_is_searched_first(official_file):
    assert load_sam2("MedSAM2_2411", folder=official_file.parent).name == "MedSAM2_2411"


def test_a_path_is_recognised_by_file_name_and_otherwise_guessed_and_said_so(official_file, tmp_path):
    assert load_sam2(official_file).configuration_from == "catalogue"
    mine = shutil.copy(official_file, tmp_path / "mine.pt")
    loaded = load_sam2(mine)
    assert (loaded.name, loaded.image_size) == ("mine", 512)
    assert loaded.configuration_from == "guessed as MedSAM2_latest"


def test_half_precision_safetensors_come_back_as_float32_with_their_own_configuration(small_model, small, tmp_path):
    path = tmp_path / "own.safetensors"
    save_sam2(path, small_model, small, training={"steps": 10})
    assert {tensor.dtype for tensor in read_state_dict(path).values()} == {torch.float32}
    loaded = load_sam2(path)
    assert loaded.configuration == small
    assert loaded.configuration_from == "beside the file"
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    assert same_tensors(loaded.model, {n: t.half().float() for n, t in small_model.state_dict().items()})


def test_a_given_configuration_is_used(small_model, small, tmp_path):
    path = tmp_path / "plain.pt"
    torch.save(small_model.state_dict(), path)  # without "model" around it
    loaded = load_sam2(path, configuration=small)
    assert (loaded.image_size, loaded.configuration_from) == (128, "given")
    with pytest.raises(WeightsError, match="of a size that the catalogue does not hold"):
        load_sam2(path)


def test_the_loaded_model_computes_what_the_saved_one_computes(small_model, small, tmp_path):
    path = tmp_path / "own.safetensors"
    save_sam2(path, small_model, small, dtype=torch.float32)
    frames = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = small_model.forward_image(frames)["vision_features"]
        computed = load_sam2(path).model.forward_image(frames)["vision_features"]
    assert torch.equal(computed, expected)


def test_registered_weights_become_the_bundled_checkpoint(small_model, small, tmp_path, monkeypatch):
    resources = tmp_path / "Resources"
    shutil.copytree("Resources", resources, ignore=shutil.ignore_patterns("checkpoint"))
    monkeypatch.setenv("SSLSEG_RESOURCES", str(resources))
    with pytest.raises(WeightsError, match="bundled weights sslseg-small are missing"):
        load_sam2("sslseg-small")
    save_sam2(tmp_path / "run7.safetensors", small_model, small)
    register_bundled(tmp_path / "run7.safetensors")
    loaded = load_sam2("sslseg-small")
    assert (loaded.name, loaded.image_size, loaded.configuration) == ("sslseg-small", 128, small)


# --- wrong files -------------------------------------------------------------------------------------------------


class Payload:
    """Runs code when unpickled: writes a file that must never appear."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


def test_a_pickle_with_code_is_refused_and_the_code_does_not_run(tmp_path):
    path, trace = tmp_path / "evil.pt", tmp_path / "trace"
    torch.save({"model": Payload(trace)}, path)
    with pytest.raises(WeightsError, match="could run code") as caught:
        load_sam2(path)
    assert not trace.exists()
    assert "weights_only=False" not in str(caught.value)


def test_a_truncated_file_says_so(official_file, tmp_path):
    path = tmp_path / "short.pt"
    path.write_bytes(official_file.read_bytes()[:50_000_000])
    with pytest.raises(WeightsError, match="damaged or incomplete") as caught:
        load_sam2(path)
    assert "download or copy it again" in str(caught.value)


def test_a_truncated_safetensors_file_says_so(small_model, small, tmp_path):
    path = tmp_path / "short.safetensors"
    save_sam2(path, small_model, small)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(WeightsError, match="damaged"):
        load_sam2(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer"),
        (b"just some text, surely no weights", "no file of weights"),
    ],
)
def test_a_file_that_is_no_weights_is_named_for_what_it_is(content, message, tmp_path):
    path = tmp_path / "MedSAM2_latest.pt"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        load_sam2(path)


def test_weights_of_dinov2_are_recognised(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"embeddings.patch_embeddings.projection.weight": torch.zeros(4, 3, 14, 14)}, path)
    with pytest.raises(WeightsError, match="weights of DINOv2"):
        load_sam2(path)


def test_another_size_under_a_catalogue_name_says_which_entry_fits(official_file, weights_folder):
    shutil.copy(official_file, weights_folder / "MedSAM2_2411.pt")
    large = Sam2Configuration(base="sam2.1_hiera_s")
    with pytest.raises(WeightsError, match=r"does not fit sam2\.1_hiera_s") as caught:
        load_sam2("MedSAM2_2411", configuration=large)
    assert "MedSAM2_latest" in str(caught.value)
    assert "sam2.1_hiera_tiny" in str(caught.value)
    assert "sam2.1_hiera_small" not in str(caught.value)


@pytest.mark.parametrize("change", ["missing", "surplus", "shape"])
def test_one_tensor_too_few_too_many_or_misshapen_is_refused_by_name(change, small_model, small, tmp_path):
    state = dict(small_model.state_dict())
    if change == "missing":
        del state["maskmem_tpos_enc"]
    elif change == "surplus":
        state["maskmem_tpos_enc_2"] = torch.zeros(1)
    else:
        state["maskmem_tpos_enc"] = torch.zeros(1)
    path = tmp_path / "off.safetensors"
    save_sam2(path, state, small)
    with pytest.raises(WeightsError, match="maskmem_tpos_enc"):
        load_sam2(path)


def test_weights_with_nan_are_refused(small_model, small, tmp_path):
    state = {name: tensor.clone() for name, tensor in small_model.state_dict().items()}
    state["no_obj_ptr"][:] = float("nan")
    path = tmp_path / "nan.pt"
    torch.save({"model": state}, path)
    with pytest.raises(WeightsError, match="no_obj_ptr"):
        load_sam2(path, configuration=small)


def test_a_file_with_another_digest_than_the_catalogue_is_refused(official_file, weights_folder, monkeypatch):
    shutil.copy(official_file, weights_folder / "MedSAM2_latest.pt")
    with pytest.raises(WeightsError, match=r"has \d+ bytes, but MedSAM2_latest has 156040129"):
        load_sam2("MedSAM2_latest")
    with open(weights_folder / "MedSAM2_latest.pt", "r+b") as opened:
        opened.truncate(156040129)
    with pytest.raises(WeightsError, match=r"its SHA-256 is .* expected c92743b9"):
        load_sam2("MedSAM2_latest")


def test_weights_and_description_of_different_trainings_are_refused(small_model, small, tmp_path):
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    save_sam2(one, small_model, small)
    save_sam2(two, small_model, small, dtype=torch.float32)
    shutil.copy(two, one)
    with pytest.raises(WeightsError, match="not the file that the JSON beside it describes"):
        load_sam2(one)


def test_a_description_that_names_code_is_refused(small_model, small, tmp_path):
    path = tmp_path / "own.safetensors"
    save_sam2(path, small_model, small)
    sidecar = path.with_suffix(".json")
    sidecar.write_text(sidecar.read_text().replace('"num_layers": 2', '"num_layers": 2, "_target_": "os.system"'))
    with pytest.raises(WeightsError, match="_target_"):
        load_sam2(path)


def test_weights_of_another_kind_and_unknown_names_say_what_to_use():
    with pytest.raises(WeightsError, match="dinov2 model, not a SAM2"):
        load_sam2("dinov2-small")
    with pytest.raises(WeightsError, match="MedSAM2_latest"):
        load_sam2("medsam2_lates")
    with pytest.raises(WeightsError, match="There is no file"):
        load_sam2("nowhere/mine.pt")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_missing_gpu_is_an_error_and_never_a_silent_cpu(official_file):
    with pytest.raises(DeviceError, match="cuda"):
        load_sam2(official_file, device="cuda")
