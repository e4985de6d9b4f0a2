"""Stock memory attention for many slices that share most of their memory, with some of it hidden."""

import torch
from sam2.modeling.memory_attention import MemoryAttention
from sam2.modeling.position_encoding import apply_rotary_enc
from sam2.modeling.sam.transformer import RoPEAttention

__all__ = ["attend"]


def _rotated(attention: RoPEAttention, x: torch.Tensor, repeats: int) -> torch.Tensor:
    """Rotary encoding of (n, repeats x HW, C), the same for each repeat."""
    table = attention.freqs_cis = attention.freqs_cis.to(x.device)
    n, tokens, width = x.shape
    x = x.reshape(n, repeats, tokens // repeats, width)
    return apply_rotary_enc(x, x[:, :, :0], table)[0].reshape(n, tokens, width)


def _cross(
    attention: RoPEAttention,
    queries: torch.Tensor,
    shared: tuple[torch.Tensor, torch.Tensor],
    local: tuple[torch.Tensor, torch.Tensor],
    pointers: int,
    bias: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    groups, slices, tokens, _ = queries.shape
    q = attention.q_proj(queries).flatten(0, 1)
    q = _rotated(attention, q, 1)
    shared_keys, shared_values = attention.k_proj(shared[0]), attention.v_proj(shared[1])
    local_keys, local_values = attention.k_proj(local[0]).flatten(0, 1), attention.v_proj(local[1]).flatten(0, 1)
    if shared_keys.shape[1]:
        shared_keys = _rotated(attention, shared_keys, shared_keys.shape[1] // tokens)
    spatial = local_keys.shape[1] - pointers
    if spatial:
        rotated = _rotated(attention, local_keys[:, :spatial], spatial // tokens)
        local_keys = torch.cat([rotated, local_keys[:, spatial:]], dim=1)

    q = q * q.shape[-1] ** -0.5
    to_shared = q.view(groups, slices * tokens, -1) @ shared_keys.mT
    to_local = q @ local_keys.mT
    scores = torch.cat([to_shared.view(groups * slices, tokens, -1), to_local], dim=-1)
    weights = (scores + bias.flatten(0, 1)[:, None]).softmax(dim=-1)
    first, second = weights.split([shared_keys.shape[1], local_keys.shape[1]], dim=-1)
    out = (first.reshape(groups, slices * tokens, -1) @ shared_values).view(groups * slices, tokens, -1)
    out = attention.out_proj(out + second @ local_values).view(groups, slices, tokens, -1)
    return out, first.view(groups, slices, tokens, -1)


def attend(
    memory_attention: MemoryAttention,
    current: torch.Tensor,
    current_position: torch.Tensor,
    shared: torch.Tensor,
    shared_position: torch.Tensor,
    local: torch.Tensor,
    local_position: torch.Tensor,
    pointers: int,
    visible: torch.Tensor,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What ``MemoryAttention.forward`` computes, for G groups of L slices; a group's slices share memories.

    Args:
        current: (G, L, HW, C) features of the slices; ``current_position`` (HW, C) their position encoding.
        shared: (G, n, m) memory tokens that all slices of a group see, whole maps of HW tokens; with positions.
        local: (G, L, p, m) memory tokens of each slice: whole maps of HW tokens, then ``pointers`` pointer tokens
            (which get no rotary encoding); with positions.
        visible: bool (G, L, n + p); at least one token is visible to each slice.

    Returns:
        (G, L, HW, C), and of each layer how much every query attends to each shared token, (G, L, HW, n).
    """
    bias = torch.zeros(visible.shape, device=visible.device).masked_fill_(~visible, float("-inf"))
    out = current + 0.1 * current_position if memory_attention.pos_enc_at_input else current
    attended = []
    for layer in memory_attention.layers:
        normed = layer.norm1(out).flatten(0, 1)
        out = out + layer.self_attn(normed, normed, v=normed).view_as(out)
        keys = (shared + shared_position, shared), (local + local_position, local)
        change, weights = _cross(layer.cross_attn_image, layer.norm2(out), *keys, pointers, bias)
        out = out + change
        attended.append(weights)
        out = out + layer.linear2(layer.activation(layer.linear1(layer.norm3(out))))
    return memory_attention.norm(out), attended
