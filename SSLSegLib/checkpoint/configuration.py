"""The architecture of the bundled checkpoint: stock SAM2 classes at reduced width and image size."""

from typing import Any

from ..weights.sam2_model import Sam2Configuration

__all__ = ["SMALL_NAME", "small_configuration"]

SMALL_NAME = "sslseg-small"


def small_configuration(
    *,
    image_size: int = 128,
    hidden: int = 96,
    memory: int = 32,
    trunk: int = 32,
    stages: tuple[int, ...] = (1, 2, 3, 1),
) -> Sam2Configuration:
    """The configuration of ``sslseg-small``: SAM2.1 tiny's structure, narrower, at ``image_size`` pixels.

    Semantics of tracking are the stock ones (object pointers, six previous memories, occlusion score, mask prompts
    used as output). Three things differ from the stock file besides the widths:

    * Tracking gives one mask, not the best of three: what is meant is in the memory, so there is no ambiguity to
      cover, and the untrained stability fallback to the other masks is off.
    * No dropout in the memory attention: generated data does not run out.
    * The memory fuser's layer scale starts at 0.1 instead of 1e-6, which short training could not move.

    Args:
        image_size: Side of the frame in pixels, a multiple of 32.
        hidden: Width of the feature maps, the memory attention and the decoder.
        memory: Width of a memory; ``hidden`` is a multiple of it.
        trunk: Width of the first trunk stage; it doubles with each stage.
        stages: Blocks per trunk stage.
    """
    attention = {"embedding_dim": hidden, "dropout": 0.0}
    overrides: dict[str, Any] = {
        "image_encoder": {
            "trunk": {
                "embed_dim": trunk,
                "stages": list(stages),
                # One window covers the whole map from the third stage on: global attention where it is cheap. The last
                # block of the second stage looks everywhere too, or the edges of its windows show in the masks. Its
                # first block shrinks the map, which needs windows.
                "global_att_blocks": [sum(stages[:2]) - 1] if stages[1] > 1 else [],
                "window_spec": [8, 4, image_size // 16, image_size // 32],
                "window_pos_embed_bkg_spatial_size": [7, 7],
            },
            "neck": {
                "d_model": hidden,
                "backbone_channel_list": [trunk * 8, trunk * 4, trunk * 2, trunk],
                "position_encoding": {"num_pos_feats": hidden},
            },
        },
        "memory_attention": {
            "d_model": hidden,
            "num_layers": 2,
            "layer": {
                "d_model": hidden,
                "dim_feedforward": 4 * hidden,
                "dropout": 0.0,
                "self_attention": attention,
                "cross_attention": attention | {"kv_in_dim": memory},
            },
        },
        "memory_encoder": {
            "in_dim": hidden,
            "out_dim": memory,
            "position_encoding": {"num_pos_feats": memory},
            "mask_downsampler": {"embed_dim": hidden},
            "fuser": {"layer": {"dim": hidden, "layer_scale_init_value": 0.1}},
        },
        "multimask_output_in_sam": False,
        "multimask_output_for_tracking": False,
        "use_multimask_token_for_obj_ptr": False,
        "sam_mask_decoder_extra_args": {"dynamic_multimask_via_stability": False},
    }
    return Sam2Configuration(base="sam2.1_hiera_t", image_size=image_size, overrides=overrides, place_prompts=True)
