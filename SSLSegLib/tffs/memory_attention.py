"""SAM2's memory attention taken apart, so that what does not change between chains is computed once.

``sam2.modeling.memory_attention.MemoryAttention`` concatenates all memories and projects them anew for every frame.
Here a memory's keys are projected and rotated once, values are the raw memories (the value projection is linear and the
weights of a softmax sum to one, so it can follow the attention), and the attention over the conditioning memories is a
part of its own. The result is the same up to rounding.
"""

import copy
from typing import NamedTuple

import torch
from sam2.modeling.sam.transformer import RoPEAttention

from ..errors import WeightsError
from .attention import KeyValues, Partial, attend, attention
from .precision import Arithmetic

__all__ = ["FrameConstants", "MemoryAttention"]


_TOKENS_AT_ONCE = 256


class FrameConstants(NamedTuple):
    """What layer 0 knows about frames before it sees a memory: ``residual`` (n, N, C) and ``queries`` (n, N, d)."""

    residual: torch.Tensor
    queries: torch.Tensor


class MemoryAttention:
    """Memory attention with keys and values given per part.

    Args:
        module: The model's ``memory_attention``.
        positions: Position encoding of the top feature level, (N, C).
        arithmetic: Of projections, attention and feed-forward; residuals and norms are always float32.
        backend: ``sdpa`` (values are projected beforehand) or ``tiled`` (values are the raw memories).

    Raises:
        WeightsError: The model's attention is of a kind this cannot take apart.
    """

    def __init__(self, module: torch.nn.Module, positions: torch.Tensor, arithmetic: Arithmetic, backend: str) -> None:
        self.backend = backend
        self.arithmetic = arithmetic
        self.dtype = torch.bfloat16 if arithmetic == "bfloat16" else torch.float32
        self.depth = len(module.layers)
        self._positions = positions
        self._module = module
        self._layers = module.layers
        # Copies in the attention's number format; the norms are taken from the originals.
        self._cores = module.layers if self.dtype == torch.float32 else copy.deepcopy(module.layers).to(self.dtype)
        self._rotations = [self._rotation(layer.cross_attn_image) for layer in module.layers]
        self._self_rotations = [self._rotation(layer.self_attn) for layer in module.layers]

    def _rotation(self, attention: torch.nn.Module) -> torch.Tensor:
        """The complex table (N, d / 2) of an attention's rotary encoding."""
        if not isinstance(attention, RoPEAttention) or attention.num_heads != 1:
            raise WeightsError("TFFS needs a SAM2 whose memory attention has rotary encoding and one head.")
        table = attention.freqs_cis
        if table.shape[0] != self._positions.shape[0]:
            side = round(self._positions.shape[0] ** 0.5)
            table = attention.compute_cis(end_x=side, end_y=side)
        return table.to(self._positions.device)

    def memory_keys(self, layer: int, memories: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Keys (..., N, d) of spatial memories (..., N, M) for one layer.

        ``positions``, broadcastable to the memories, is their spatial plus temporal encoding.
        """
        return _rotated(self._keys(layer, memories, positions), self._rotations[layer]).to(self.dtype)

    def pointer_keys(self, layer: int, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Keys (B, P, d) of object pointer tokens (B, P, M) for one layer: not rotated."""
        return self._keys(layer, tokens, positions).to(self.dtype)

    def _keys(self, layer: int, memories: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        with_position = memories + positions if self._layers[layer].pos_enc_at_cross_attn_keys else memories.float()
        return self._layers[layer].cross_attn_image.k_proj(with_position)

    def values(self, memories: torch.Tensor) -> list[torch.Tensor]:
        """Values by layer. Raw memories serve all layers; the fused kernel wants values as wide as keys."""
        memories = memories.to(self.dtype)
        if self.backend == "tiled":
            return [memories] * self.depth
        return [core.cross_attn_image.v_proj(memories) for core in self._cores]

    def begin(self, top: torch.Tensor) -> FrameConstants:
        """Layer 0 up to its cross-attention query, which sees no memory. ``top`` is (n, C, h, w)."""
        residual = top.flatten(2).transpose(1, 2).float()
        if self._module.pos_enc_at_input:
            residual = residual + 0.1 * self._positions
        residual = self._self_attention(0, residual)
        return FrameConstants(residual, self._queries(0, residual))

    def attend_shared(self, constants: FrameConstants, shared: KeyValues) -> Partial:
        """Layer 0's attention over the conditioning memories: the same for all chains at a slice."""
        return attend(constants.queries, shared, self.backend)

    def finish(
        self,
        constants: FrameConstants,
        first_shared: Partial,
        shared: list[KeyValues],
        local: list[list[KeyValues]],
    ) -> torch.Tensor:
        """All layers from layer 0's cross-attention on.

        Args:
            constants: Of the rows' slices, (B, ...).
            first_shared: Layer 0's attention over the conditioning memories, (B, ...).
            shared: Keys and values of the conditioning memories by layer.
            local: Each row's own keys and values by layer.

        Returns:
            (B, N, C), float32, normalised.
        """
        residual, queries = constants
        for layer in range(self.depth):
            if layer > 0:
                residual = self._self_attention(layer, residual)
                queries = self._queries(layer, residual)
            attended = attention(queries, first_shared if layer == 0 else shared[layer], local[layer], self.backend)
            residual = residual + self._project_out(layer, attended)
            residual = residual + self._feed_forward(layer, residual)
        return self._module.norm(residual)

    def _self_attention(self, layer: int, residual: torch.Tensor) -> torch.Tensor:
        module, core = self._layers[layer], self._cores[layer].self_attn
        normed = module.norm1(residual)
        with_position = (normed + self._positions if module.pos_enc_at_attn else normed).to(self.dtype)
        rotation = self._self_rotations[layer]
        queries, keys = (
            _rotated(projection(with_position), rotation).to(self.dtype) for projection in (core.q_proj, core.k_proj)
        )
        attended = attend(queries, KeyValues(keys, core.v_proj(normed.to(self.dtype))), self.backend).output
        return residual + core.out_proj(attended.to(self.dtype)).float()

    def _queries(self, layer: int, residual: torch.Tensor) -> torch.Tensor:
        module = self._layers[layer]
        normed = module.norm2(residual)
        with_position = normed + self._positions if module.pos_enc_at_cross_attn_queries else normed
        queries = self._cores[layer].cross_attn_image.q_proj(with_position.to(self.dtype))
        return _rotated(queries.float(), self._rotations[layer]).to(self.dtype)

    def _project_out(self, layer: int, attended: torch.Tensor) -> torch.Tensor:
        cross = self._layers[layer].cross_attn_image
        if self.backend == "tiled":
            attended = cross.v_proj(attended)
        return cross.out_proj(attended).float()

    def _feed_forward(self, layer: int, residual: torch.Tensor) -> torch.Tensor:
        module, core = self._layers[layer], self._cores[layer]
        normed = module.norm3(residual).to(self.dtype)
        # On a CPU a block of tokens at a time: the hidden layer, eight times as wide, then stays in the cache.
        block = _TOKENS_AT_ONCE if residual.device.type == "cpu" else normed.shape[1]
        return torch.cat(
            [core.linear2(_activated(module, core.linear1(tokens))) for tokens in normed.split(block, dim=1)], dim=1
        ).float()


def _activated(module: torch.nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    return hidden.relu_() if module.activation is torch.nn.functional.relu else module.activation(hidden)


def _rotated(vectors: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """Axial rotary encoding of (..., N, d) by the complex table (N, d / 2)."""
    pairs = torch.view_as_complex(vectors.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * rotation).flatten(-2)
