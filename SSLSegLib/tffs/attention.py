"""Softmax attention over keys that come in parts, each part's result carrying what is needed to merge it exactly.

The parts are the conditioning memories of a labelled volume (shared by all chains), a chain's own recent memories and
its object pointers. A part's normalised output and log-sum-exp are all that another part needs to know about it.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch

__all__ = ["Backend", "KeyValues", "Partial", "attend", "attention", "merge"]

Backend = Literal["sdpa", "tiled"]

# Tile of queries x keys whose scores are alive at a time in the tiled kernel (found by measurement, fits a core's L2).
_QUERY_TILE = 512
_KEY_TILE = 1024
# Sums of unshifted exponentials between these bounds are as good as shifted ones.
_SMALLEST_SUM, _LARGEST_SUM = 1e-20, 1e30


class KeyValues(NamedTuple):
    """Keys and values of one part.

    ``keys`` (B, L, d) or, shared by all rows, (L, d); ``values`` likewise with their own width; ``valid`` (B, L) tells
    which keys exist where rows have different numbers of them, None when all do.
    """

    keys: torch.Tensor
    values: torch.Tensor
    valid: torch.Tensor | None = None


class Partial(NamedTuple):
    """Attention over one part: ``output`` (B, N, width), float32, and ``log_sum`` (B, N), float32."""

    output: torch.Tensor
    log_sum: torch.Tensor


def attention(
    queries: torch.Tensor, shared: KeyValues | Partial, local: Sequence[KeyValues], backend: Backend
) -> torch.Tensor:
    """Softmax attention over the union of all parts.

    Args:
        queries: (B, N, d), unscaled.
        shared: Keys (L, d) shared by all rows, or the already computed attention over them.
        local: Each row's own keys.
        backend: Which kernel computes it.

    Returns:
        (B, N, width of the values), float32.
    """
    if isinstance(shared, KeyValues):
        shared = attend(queries, shared, backend)
    return merge([shared, *(attend(queries, part, backend) for part in local)]).output


def attend(queries: torch.Tensor, part: KeyValues, backend: Backend) -> Partial:
    """Attention over one part. Queries (B, N, d), unscaled. Shared keys see all rows as one long row of queries."""
    if part.valid is not None:
        return _masked(queries, part)
    kernel = _tiled if backend == "tiled" else _sdpa
    if part.keys.dim() == 2:
        rows, count, _ = queries.shape
        folded = kernel(queries.reshape(1, rows * count, -1), part.keys[None], part.values[None])
        return Partial(folded.output.view(rows, count, -1), folded.log_sum.view(rows, count))
    return kernel(queries, part.keys, part.values)


def merge(partials: Sequence[Partial]) -> Partial:
    """The attention over the union of the parts."""
    if len(partials) == 1:
        return partials[0]
    log_sums = torch.stack([partial.log_sum for partial in partials])
    log_sum = torch.logsumexp(log_sums, dim=0)
    weights = (log_sums - log_sum).exp_().unsqueeze(-1)
    output = weights[0] * partials[0].output
    for weight, partial in zip(weights[1:], partials[1:], strict=True):
        output = torch.addcmul(output, weight, partial.output)
    return Partial(output, log_sum)


def _masked(queries: torch.Tensor, part: KeyValues) -> Partial:
    """All scores at once: for the few keys of object pointers, whose number differs from row to row."""
    scores = (queries @ part.keys.transpose(-2, -1)).float().div_(math.sqrt(queries.shape[-1]))
    scores.masked_fill_(~part.valid[:, None, :], -torch.inf)
    log_sum = torch.logsumexp(scores, dim=-1)
    # A row without any key has the weight exp(-inf) = 0 in a merge; its output only must not be NaN.
    weights = (scores - log_sum.clamp_min(torch.finfo(torch.float32).min)[..., None]).exp_()
    return Partial((weights.to(part.values.dtype) @ part.values).float(), log_sum)


def _tiled(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> Partial:
    """Softmax over tiles of scores; the width of the values is free, so raw memories can be values."""
    queries, keys, values = queries.float(), keys.float(), values.float()
    rows, count, width = queries.shape
    scale = 1.0 / math.sqrt(width)
    output = queries.new_empty(rows, count, values.shape[-1], dtype=torch.float32)
    log_sum = queries.new_empty(rows, count, dtype=torch.float32)
    for row in range(rows):
        for start in range(0, count, _QUERY_TILE):
            tile = slice(start, start + _QUERY_TILE)
            scaled = queries[row, tile] * scale
            weighted, sums = _plain_softmax(scaled, keys[row], values[row])
            if not bool(((sums > _SMALLEST_SUM) & (sums < _LARGEST_SUM)).all()):
                weighted, sums = _online_softmax(scaled, keys[row], values[row])
            else:
                weighted, sums = weighted.div_(sums[:, None]), sums.log_()
            output[row, tile], log_sum[row, tile] = weighted, sums
    return Partial(output, log_sum)


def _plain_softmax(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted sum of the values and sum of the weights, the weights being exp(score) without any shift.

    Floating point is as exact for weights around 1e-20 or 1e20 as for those around 1, so the usual subtraction of the
    largest score (two more passes over all scores) is only needed where a sum would leave the range.
    """
    weighted = values.new_zeros(queries.shape[0], values.shape[1])
    sums = values.new_zeros(queries.shape[0])
    # One buffer for the scores of all tiles: fresh pages would cost as much as the exponentials.
    buffer = queries.new_empty(queries.shape[0] * min(_KEY_TILE, keys.shape[0]))
    for start in range(0, keys.shape[0], _KEY_TILE):
        some_keys = keys[start : start + _KEY_TILE]
        scores = buffer[: queries.shape[0] * some_keys.shape[0]].view(queries.shape[0], -1)
        weights = torch.mm(queries, some_keys.T, out=scores).exp_()
        sums += weights.sum(dim=-1)
        weighted.addmm_(weights, values[start : start + _KEY_TILE])
    return weighted, sums


def _online_softmax(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output and log-sum-exp, the shift following the largest score seen so far."""
    largest = queries.new_full((queries.shape[0], 1), -torch.inf)
    sums = torch.zeros_like(largest)
    weighted = values.new_zeros(queries.shape[0], values.shape[1])
    for start in range(0, keys.shape[0], _KEY_TILE):
        scores = queries @ keys[start : start + _KEY_TILE].T
        new_largest = torch.maximum(largest, scores.amax(dim=-1, keepdim=True))
        shrink = (largest - new_largest).exp_()
        weights = scores.sub_(new_largest).exp_()
        sums = sums.mul_(shrink).add_(weights.sum(dim=-1, keepdim=True))
        weighted = weighted.mul_(shrink).addmm_(weights, values[start : start + _KEY_TILE])
        largest = new_largest
    return weighted.div_(sums), (largest + sums.log()).squeeze(-1)


def _sdpa(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> Partial:
    """PyTorch's fused kernel where it returns the log-sum-exp, else the tiled one. Keys and values of equal width."""
    heads = [tensor.unsqueeze(1) for tensor in (queries, keys, values)]
    if queries.device.type == "cpu":
        output, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*heads)
    elif queries.device.type == "cuda" and queries.dtype in (torch.bfloat16, torch.float16):
        output, log_sum, *_ = torch.ops.aten._scaled_dot_product_flash_attention(*heads)
    elif queries.device.type == "cuda":
        output, log_sum, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(*heads, None, True)
        log_sum = log_sum[..., : queries.shape[1]]
    else:
        return _tiled(queries, keys, values)
    return Partial(output.squeeze(1).float(), log_sum.squeeze(1).float())
