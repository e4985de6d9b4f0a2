import pytest
import torch
from official_format import CONFIGURATION, HIDDEN, PATCH, dinov2_state, plain_levels, plain_logits, unimatch_state

from SSLSegLib.unimatch.configuration import NETWORKS, NetworkConfiguration
from SSLSegLib.unimatch.network import SegmentationNetwork, complementary_masks

SMALL = NetworkConfiguration(**CONFIGURATION)


def images(rows: int = 5, columns: int = 5, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, rows * PATCH, columns * PATCH, generator=torch.Generator().manual_seed(3))


def filled(state: dict, classes: int = 3) -> SegmentationNetwork:
    from SSLSegLib.unimatch.checkpoints import translate

    network = SegmentationNetwork(SMALL, classes).eval()
    network.load_state_dict(translate(state)[1], strict=False)
    return network


@pytest.mark.parametrize(("rows", "columns"), [(5, 5), (7, 4), (3, 9)])
def test_logits_equal_those_of_a_plain_dinov2_and_dpt_at_any_size(rows, columns):
    state = unimatch_state(classes=3)
    batch = images(rows, columns)
    expected = plain_logits(state, batch)
    with torch.no_grad():
        computed = filled(state)(batch)
    assert computed.shape == (2, 3, rows * PATCH, columns * PATCH)
    assert expected.std() > 0.1
    torch.testing.assert_close(computed, expected, atol=2e-5, rtol=1e-4)


def test_encoder_levels_equal_those_of_a_plain_dinov2():
    state = dinov2_state()
    with torch.no_grad():
        computed = filled(state).encode(images(6, 6))
    for level, expected in zip(computed, plain_levels(state, images(6, 6)), strict=True):
        torch.testing.assert_close(level, expected, atol=2e-5, rtol=1e-4)


def test_image_sides_that_are_no_multiples_of_the_patch_are_refused():
    with pytest.raises(ValueError, match="multiples of 4"):
        SegmentationNetwork(SMALL, 2)(torch.zeros(1, 3, 22, 20))


def test_what_one_stream_loses_the_other_keeps_and_half_of_the_batch_loses_nothing():
    first, second = complementary_masks(7, 400, torch.Generator().manual_seed(1))
    untouched = (first == 1).all(1)
    assert untouched.sum() == 3
    assert torch.equal(untouched, (second == 1).all(1))
    dropped = ~untouched
    assert set(first[dropped].unique().tolist()) == {0.0, 2.0}
    assert torch.equal(first + second, torch.full_like(first, 2.0))
    assert torch.all(first[dropped] * second[dropped] == 0)
    assert 0.4 < first[dropped].mean() / 2 < 0.6
    assert not torch.equal(first[dropped][0], first[dropped][1])


def test_channel_masks_reach_all_four_levels_alike():
    network = SegmentationNetwork(SMALL, 3).eval()
    seen = []
    network.decoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    mask = torch.ones(2, HIDDEN)
    mask[0, :10] = 0
    with torch.no_grad():
        network(images())
        network(images(), mask)
    for plain, masked in zip(*seen, strict=True):
        assert torch.equal(masked[0, :, :10], torch.zeros_like(masked[0, :, :10]))
        assert torch.equal(masked[0, :, 10:], plain[0, :, 10:])
        assert torch.equal(masked[1], plain[1])


def test_the_small_network_has_the_official_number_of_parameters_but_for_what_is_never_used():
    with torch.device("meta"):
        network = SegmentationNetwork(NETWORKS["small"], 21)
    used = sum(parameter.numel() for parameter in network.parameters())
    never_used = 2 * (64 * 64 * 9 + 64)  # the side branch of the coarsest fusion
    assert round((used + never_used) / 1e6, 1) == 24.8


def test_gradients_reach_every_parameter_that_learns():
    network = SegmentationNetwork(SMALL, 3)
    network(images()).square().sum().backward()
    without = [name for name, each in network.named_parameters() if each.requires_grad and each.grad is None]
    assert without == []
