"""How much memory a language model of true size needs, from its configuration alone: nothing is loaded or allocated."""

from dataclasses import dataclass

from SSLSegLib.vessa.configuration import LanguageConfiguration

__all__ = ["MemoryEstimate", "estimate_memory", "true_size"]

_ADAM = 16  # bytes a trained number: float32 weight, gradient and two moments


@dataclass(frozen=True)
class MemoryEstimate:
    """Gigabytes (10^9 bytes) and counts.

    Args:
        parameters: Of the language model, its vision tower included.
        trained: Of LoRA and the new token's row.
        tokens: Of one dialogue.
        weights: Frozen weights in bfloat16.
        adapter: Trained numbers with gradients and AdamW's moments, float32.
        activations: Of a training step with recomputed activations: what is kept between layers, and one layer whole.
        training, inference: Sums, without the framework's own part (about one gigabyte on a GPU) and SAM2's.
    """

    parameters: int
    trained: int
    tokens: int
    weights: float
    adapter: float
    activations: float
    training: float
    inference: float


def estimate_memory(configuration: LanguageConfiguration, *, batch: int = 1, words: int = 100) -> MemoryEstimate:
    """Estimate for a configuration with an ``architecture`` (see :func:`true_size`).

    Args:
        configuration: Sizes, LoRA rank and image side.
        batch: Pairs at a time.
        words: Tokens of instruction, answer and layout beside the images.
    """
    import torch
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    config = Qwen3VLConfig(**(configuration.architecture or {}))
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(config)
    model.tie_weights()
    parameters = sum(each.numel() for each in model.parameters())
    text, rank = config.text_config, configuration.lora_rank
    queries, keys = text.num_attention_heads * text.head_dim, text.num_key_value_heads * text.head_dim
    hidden, inner = text.hidden_size, text.intermediate_size
    # Inputs and outputs of the seven matrices that LoRA adapts: q, k, v, o, gate, up, down.
    sides = (hidden + queries) * 2 + (hidden + keys) * 2 + (hidden + inner) * 3
    trained = rank * sides * text.num_hidden_layers + hidden
    tokens = 2 * (configuration.image_side // 32) ** 2 + words
    kept = batch * tokens * hidden * text.num_hidden_layers * 2
    # One layer whole: normed states, queries, keys, values, attention output, gate, up, product, inputs of LoRA.
    layer = batch * tokens * (6 * hidden + 3 * queries + 2 * keys + 4 * inner) * 4
    vision = config.vision_config
    patches = batch * 2 * (configuration.image_side // 16) ** 2
    tower = patches * (8 * vision.hidden_size + 2 * vision.intermediate_size) * 2
    weights, adapter, activations = 2 * parameters, _ADAM * trained, kept + max(layer, tower)
    giga = 1e9
    return MemoryEstimate(
        parameters=parameters,
        trained=trained,
        tokens=tokens,
        weights=weights / giga,
        adapter=adapter / giga,
        activations=activations / giga,
        training=(weights + adapter + activations) / giga,
        inference=(weights + 4 * trained + max(tower, layer // 4)) / giga,
    )


def true_size(name: str) -> LanguageConfiguration:
    """Qwen3-VL-2B or 4B in its true size with random weights: for memory estimates and dry runs without a download."""
    text = {
        "2B": {"hidden_size": 2048, "num_hidden_layers": 28, "num_attention_heads": 16, "intermediate_size": 6144},
        "4B": {"hidden_size": 2560, "num_hidden_layers": 36, "num_attention_heads": 32, "intermediate_size": 9728},
    }[name]
    rope = {"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True, "rope_theta": 5e6}
    architecture = {
        "text_config": {
            **text,
            "vocab_size": 151_936,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "rope_parameters": rope,
        },
        "vision_config": {
            "depth": 24,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_heads": 16,
            "out_hidden_size": text["hidden_size"],
            "deepstack_visual_indexes": [5, 11, 17],
        },
        "tie_word_embeddings": True,
    }
    return LanguageConfiguration(architecture=architecture)
