import numpy as np
import pytest
import torch
from official_format import CONFIGURATION, HIDDEN, PATCH, dinov2_state, plain_levels, plain_logits, unimatch_state

from SSLSegLib.errors import WeightsError
from SSLSegLib.unimatch.checkpoints import load_weights
from SSLSegLib.unimatch.configuration import NetworkConfiguration
from SSLSegLib.unimatch.network import SegmentationNetwork

IMAGES = torch.randn(2, 3, 6 * PATCH, 5 * PATCH, generator=torch.Generator().manual_seed(5))


def network(classes: int = 3) -> SegmentationNetwork:
    torch.manual_seed(0)
    return SegmentationNetwork(NetworkConfiguration(**CONFIGURATION), classes).eval()


def official_checkpoint(state: dict, best: object) -> dict:
    """As the official training writes it: under DistributedDataParallel, with its best score as NumPy gives it."""
    prefixed = {f"module.{name}": tensor for name, tensor in state.items()}
    return {
        "model": prefixed,
        "model_ema": {name: tensor + 1 for name, tensor in prefixed.items()},
        "optimizer": {"state": {}, "param_groups": [{"lr": 5e-6, "params": [0]}]},
        "epoch": 59,
        "previous_best": best,
        "best_epoch": 3,
    }


def test_an_official_unimatch_checkpoint_loads_and_gives_the_same_logits(tmp_path):
    state = unimatch_state(classes=3)
    torch.save(official_checkpoint(state, np.float64(81.3)), tmp_path / "best.pth")
    ours = network()
    loaded = load_weights(ours, tmp_path / "best.pth")
    assert (loaded.kind, loaded.decoder, loaded.classifier) == ("unimatch-v2", True, True)
    with torch.no_grad():
        torch.testing.assert_close(ours(IMAGES), plain_logits(state, IMAGES), atol=2e-5, rtol=1e-4)


def test_with_another_number_of_classes_all_but_the_last_layer_loads(tmp_path):
    torch.save(official_checkpoint(unimatch_state(classes=21), 0.5), tmp_path / "best.pth")
    ours, untouched = network(), network().decoder.classify.weight
    assert not load_weights(ours, tmp_path / "best.pth").classifier
    assert torch.equal(ours.decoder.classify.weight, untouched)
    assert torch.equal(ours.decoder.smooth.weight, unimatch_state(21)["head.scratch.output_conv.0.weight"])


def test_a_dinov2_file_of_meta_fills_the_encoder_and_leaves_the_decoder(tmp_path):
    state = dinov2_state(seed=4)
    torch.save(state, tmp_path / "dinov2_pretrain.pth")
    ours, decoder = network(), network().decoder.state_dict()
    loaded = load_weights(ours, tmp_path / "dinov2_pretrain.pth")
    assert (loaded.kind, loaded.decoder) == ("dinov2", False)
    with torch.no_grad():
        for level, expected in zip(ours.encode(IMAGES), plain_levels(state, IMAGES), strict=True):
            torch.testing.assert_close(level, expected, atol=2e-5, rtol=1e-4)
    assert all(torch.equal(tensor, decoder[name]) for name, tensor in ours.decoder.state_dict().items())


def test_dinov2_as_on_hugging_face_gives_the_same_encoder_as_metas_file(tmp_path):
    from safetensors.torch import save_file

    state = dinov2_state(seed=4)
    hub = {}
    for name, tensor in state.items():
        if ".attn.qkv." in name:
            block, kind = name.split(".")[1], name.rsplit(".", 1)[1]
            for number, part in enumerate(("query", "key", "value")):
                piece = tensor[number * HIDDEN : (number + 1) * HIDDEN].contiguous()
                hub[f"encoder.layer.{block}.attention.attention.{part}.{kind}"] = piece
            continue
        for old, new in (
            ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
            ("pos_embed", "embeddings.position_embeddings"),
            ("cls_token", "embeddings.cls_token"),
            ("mask_token", "embeddings.mask_token"),
            ("blocks.", "encoder.layer."),
            ("attn.proj", "attention.output.dense"),
            ("ls1.gamma", "layer_scale1.lambda1"),
            ("ls2.gamma", "layer_scale2.lambda1"),
        ):
            name = name.replace(old, new)
        hub["layernorm." + name[5:] if name.startswith("norm.") else name] = tensor
    save_file(hub, tmp_path / "model.safetensors")
    torch.save(state, tmp_path / "meta.pth")
    ours, other = network(), network()
    assert load_weights(ours, tmp_path / "model.safetensors").kind == "dinov2-transformers"
    load_weights(other, tmp_path / "meta.pth")
    for name, tensor in ours.encoder.state_dict().items():
        assert torch.equal(tensor, other.encoder.state_dict()[name]), name


class _Bomb:
    def __reduce__(self):
        return print, ("code from a checkpoint was run",)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, capsys):
    torch.save({**official_checkpoint(unimatch_state(3), 1.0), "extra": _Bomb()}, tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match="refused"):
        load_weights(network(), tmp_path / "bad.pth")
    assert "run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("backbone.norm.bias"), "is missing"),
        (lambda s: s.update({"backbone.register_tokens": torch.zeros(1, 4, HIDDEN)}), "is not part"),
        (lambda s: s.update({"backbone.norm.bias": torch.zeros(HIDDEN + 1)}), "has the shape"),
    ],
)
def test_a_file_that_does_not_fit_says_what_is_wrong_and_changes_nothing(tmp_path, change, said):
    state = unimatch_state(3)
    change(state)
    torch.save({"model": state}, tmp_path / "wrong.pth")
    ours, before = network(), network().state_dict()
    with pytest.raises(WeightsError, match=said):
        load_weights(ours, tmp_path / "wrong.pth")
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items())


def test_weights_of_another_model_are_refused(tmp_path):
    torch.save({"model": {"image_encoder.x": torch.zeros(1)}}, tmp_path / "sam.pt")
    with pytest.raises(WeightsError, match="neither"):
        load_weights(network(), tmp_path / "sam.pt")
