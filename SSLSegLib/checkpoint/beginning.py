"""Weights to begin a training with: without them the first hundred steps go astray."""

import torch

__all__ = ["match_by_likeness", "start_from_background"]


@torch.no_grad()
def start_from_background(model: torch.nn.Module) -> None:
    """Make the first prediction "background, object present" through biases.

    Masks are products without a bias of their own. Left alone, the first hundred steps make the image features one
    large constant, from which they do not recover.
    """
    decoder = model.sam_mask_decoder
    decoder.output_upscaling[3].bias.fill_(0.5)
    decoder.output_hypernetworks_mlps[0].layers[-1].bias.fill_(-8.0 / decoder.output_upscaling[3].bias.numel())
    decoder.pred_obj_score_head.layers[-1].bias.fill_(0.5)


@torch.no_grad()
def match_by_likeness(model: torch.nn.Module) -> None:
    """Start the attention to memories from likeness: queries are projected the way memories project their features.

    From random projections it takes many hundred steps until a slice finds what looks like it in another subject.
    """
    encoder = model.memory_encoder
    stored = encoder.out_proj.weight.flatten(1) @ encoder.pix_feat_proj.weight.flatten(1)  # features to memory
    for layer in model.memory_attention.layers:
        attention = layer.cross_attn_image
        likeness = attention.k_proj.weight @ stored
        attention.q_proj.weight.copy_(2 * likeness * attention.q_proj.weight.norm() / likeness.norm())
