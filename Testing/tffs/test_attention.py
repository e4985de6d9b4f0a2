"""The parts of attention put together equal attention over everything at once."""

import pytest
import torch

from SSLSegLib.tffs import attention as module
from SSLSegLib.tffs.attention import KeyValues, attend, attention, merge


def whole(queries, keys, values):
    """Plain attention in float64, (N, width)."""
    scores = queries.double() @ keys.double().T / queries.shape[-1] ** 0.5
    return torch.softmax(scores, dim=-1) @ values.double()


@pytest.fixture
def parts():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    queries = draw(2, 300, 16) * 3
    shared = KeyValues(draw(700, 16), draw(700, 16))
    recent = KeyValues(draw(2, 150, 16), draw(2, 150, 16))
    valid = torch.tensor([[True] * 5, [True, False, True, False, False]])
    pointers = KeyValues(draw(2, 5, 16), draw(2, 5, 16), valid)
    return queries, shared, recent, pointers


def everything(row, shared, recent, pointers):
    seen = pointers.valid[row]
    keys = torch.cat([shared.keys, recent.keys[row], pointers.keys[row][seen]])
    values = torch.cat([shared.values, recent.values[row], pointers.values[row][seen]])
    return keys, values


@pytest.mark.parametrize("backend", ["sdpa", "tiled"])
def test_shared_and_local_keys_equal_attention_over_all_keys(parts, backend):
    queries, shared, recent, pointers = parts
    result = attention(queries, shared, [recent, pointers], backend)
    for row in range(2):
        expected = whole(queries[row], *everything(row, shared, recent, pointers))
        assert (result[row] - expected).abs().max() < 1e-5


@pytest.mark.parametrize("backend", ["sdpa", "tiled"])
def test_attention_over_shared_keys_can_be_computed_beforehand(parts, backend):
    queries, shared, recent, pointers = parts
    beforehand = attend(queries, shared, backend)
    together = attention(queries, shared, [recent, pointers], backend)
    assert torch.equal(attention(queries, beforehand, [recent, pointers], backend), together)


def test_tiles_narrower_than_the_keys_change_nothing(parts, monkeypatch):
    queries, shared, *_ = parts
    expected = attend(queries, shared, "tiled")
    monkeypatch.setattr(module, "_QUERY_TILE", 64)
    monkeypatch.setattr(module, "_KEY_TILE", 96)
    result = attend(queries, shared, "tiled")
    assert (result.output - expected.output).abs().max() < 1e-5
    assert (result.log_sum - expected.log_sum).abs().max() < 1e-5


@pytest.mark.parametrize("shift", [-400.0, -60.0, 60.0, 400.0])
def test_scores_far_from_zero_neither_overflow_nor_vanish(shift):
    """All scores moved by a constant: the same weights, the log-sum-exp moved by it."""
    generator = torch.Generator().manual_seed(1)
    queries, keys = torch.randn(1, 20, 16, generator=generator), torch.randn(500, 16, generator=generator)
    values = torch.randn(500, 8, generator=generator)
    queries[..., 0] = 4.0
    moved = keys.clone()
    moved[:, 0] += shift
    near, far = (attend(queries, KeyValues(some, values), "tiled") for some in (keys, moved))
    assert (near.output - far.output).abs().max() < 1e-3
    assert torch.allclose(far.log_sum, near.log_sum + shift, atol=1e-3)


def test_a_row_without_any_key_in_a_part_ignores_the_part(parts):
    queries, shared, recent, pointers = parts
    nothing = pointers._replace(valid=torch.zeros_like(pointers.valid))
    without = attention(queries, shared, [recent], "tiled")
    assert (attention(queries, shared, [recent, nothing], "tiled") - without).abs().max() < 1e-6


def test_merging_one_part_is_that_part(parts):
    queries, shared, *_ = parts
    partial = attend(queries, shared, "tiled")
    assert merge([partial]) is partial


def test_values_may_be_narrower_than_keys_in_the_tiled_kernel():
    generator = torch.Generator().manual_seed(2)
    queries, keys = torch.randn(1, 10, 16, generator=generator), torch.randn(40, 16, generator=generator)
    values = torch.randn(40, 3, generator=generator)
    result = attend(queries, KeyValues(keys, values), "tiled").output
    assert (result[0] - whole(queries[0], keys, values)).abs().max() < 1e-5
