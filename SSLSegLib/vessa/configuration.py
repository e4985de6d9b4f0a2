"""How a VESSA is built. Imports no torch."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from SSLSegLib.weights.configuration import Sam2Configuration

__all__ = ["QWEN3_VL", "LanguageConfiguration", "VessaConfiguration", "tiny_language"]

QWEN3_VL: dict[str, str] = {name: f"Qwen/Qwen3-VL-{name}-Instruct" for name in ("2B", "4B", "8B")}
"""Sizes that were made for this, and their names on the hub. 4B is the default of Sa2VA, 2B is for small GPUs."""


class LanguageConfiguration(BaseModel):
    """The vision-language model.

    Args:
        source: A local folder in Hugging Face's format, or a name on the hub; None: random weights of ``architecture``.
        architecture: Fields of ``Qwen3VLConfig``, where the weights are random (tests, dry runs of true size).
        image_side: Side in pixels at which it sees both images; one visual token per 32 x 32 pixels.
        lora_rank, lora_alpha, lora_dropout: Of LoRA on all attention and MLP layers of the language model; the vision
            tower stays as it is.
        dtype: Of the frozen weights.
        overlay_alpha: Of the green mask over the template.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str | None = None
    architecture: dict[str, Any] | None = None
    image_side: int = Field(default=512, ge=32)
    lora_rank: int = Field(default=64, ge=1)
    lora_alpha: int = Field(default=128, ge=1)
    lora_dropout: float = Field(default=0.05, ge=0, lt=1)
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    overlay_alpha: float = Field(default=0.5, gt=0, lt=1)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.source is None) == (self.architecture is None):
            raise ValueError("a language model needs either a source or an architecture")
        if self.image_side % 32:
            raise ValueError(f"the image side {self.image_side} is no multiple of 32 pixels")
        return self


class VessaConfiguration(BaseModel):
    """A VESSA: SAM2 with its memory, and the language model that prompts it.

    Args:
        sam2: Architecture of the SAM2.
        language: None: the ablation "without VLM"; the template speaks through the memory alone.
        memory: False: the ablation "without memory"; the template speaks through the language model alone.
        single_mask: Take the decoder's first mask (as trained here). False: SAM2's own rule, the best of three by its
            own estimate, for SAM2 weights that were not trained here.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sam2: Sam2Configuration
    language: LanguageConfiguration | None = None
    memory: bool = True
    single_mask: bool = True

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.language is None and not self.memory:
            raise ValueError("without the language model and without memory nothing says what to segment")
        return self


def tiny_language(
    *, hidden: int = 64, layers: int = 2, image_side: int = 64, lora_rank: int = 8
) -> "LanguageConfiguration":
    """A real Qwen3-VL of a few hundred thousand random parameters, for tests and small experiments on a CPU."""
    heads = max(2, hidden // 16)
    architecture = {
        "text_config": {
            "vocab_size": 320,
            "hidden_size": hidden,
            "intermediate_size": 3 * hidden // 2,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads // 2,
            "head_dim": 16,
            "rope_parameters": {
                "rope_type": "default",
                "mrope_section": [4, 2, 2],
                "mrope_interleaved": True,
                "rope_theta": 5e6,
            },
        },
        "vision_config": {
            "depth": 3,
            "hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "num_heads": heads,
            "out_hidden_size": hidden,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        "tie_word_embeddings": True,
    }
    return LanguageConfiguration(
        architecture=architecture,
        image_side=image_side,
        lora_rank=lora_rank,
        lora_alpha=2 * lora_rank,
        lora_dropout=0.0,
        dtype="float32",
    )
