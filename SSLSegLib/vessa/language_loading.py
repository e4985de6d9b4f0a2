"""Qwen3-VL from a folder, from the hub, or with random weights of any size."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from SSLSegLib.errors import WeightsError
from SSLSegLib.vessa.configuration import LanguageConfiguration
from SSLSegLib.vessa.language import LanguageModel
from SSLSegLib.vessa.prompter import Prompter
from SSLSegLib.vessa.prompts import SEG_TOKEN

__all__ = ["load_language"]


def load_language(
    configuration: LanguageConfiguration, width: int, *, seed: int = 0, download: bool = False
) -> LanguageModel:
    """Build the language model, from weights or at random.

    Args:
        configuration: Which.
        width: C, of SAM2's prompts.
        seed: Of what is random: the new token's row, LoRA, the projector, and all weights where there is no source.
        download: Allow the hub to be asked where the source is no local folder and is not on this machine yet.

    Raises:
        WeightsError: The source is not here, or is no Qwen3-VL; or peft is missing.
    """
    dtype = getattr(torch, configuration.dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if configuration.source is None:
            tokenizer, images = _byte_tokenizer(), _image_processor()
            # Made in its own precision: float32 first would take twice the memory, and rounding the whole model
            # afterwards would round the frequencies of its positions too, which stay float32 in a loaded one.
            qwen = AutoModelForImageTextToText.from_config(_random_configuration(configuration, tokenizer), dtype=dtype)
        else:
            tokenizer, images, qwen = _from_source(configuration.source, dtype, download)
        tokenizer.add_tokens([SEG_TOKEN], special_tokens=True)
        # The matrix is longer than the tokenizer already (151,936 rows); to resize it would shrink it.
        if len(tokenizer) > qwen.get_input_embeddings().num_embeddings:
            qwen.resize_token_embeddings(len(tokenizer))
        return LanguageModel(qwen, Prompter(tokenizer, images, configuration), configuration, width)


def _from_source(source: str, dtype: torch.dtype, download: bool) -> tuple[Any, Any, Any]:
    here = {"local_files_only": not download}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **here)
        images = Qwen2VLImageProcessorPil.from_pretrained(source, **here)
        qwen = Qwen3VLForConditionalGeneration.from_pretrained(source, dtype=dtype, use_safetensors=True, **here)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(
            f"No Qwen3-VL can be loaded from '{source}': {str(error).splitlines()[0]}",
            remedy="Name a folder with its files, allow the download (`vessa train --download`), or go without a "
            "language model (`vessa train --language none`, elsewhere --without-vlm).",
        ) from error
    return tokenizer, images, qwen


def _random_configuration(configuration: LanguageConfiguration, tokenizer: PreTrainedTokenizerBase) -> Qwen3VLConfig:
    fields_: Mapping[str, Any] = configuration.architecture or {}
    ids = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return Qwen3VLConfig(**fields_, **{name: tokenizer.convert_tokens_to_ids(token) for name, token in ids.items()})


def _byte_tokenizer() -> PreTrainedTokenizerBase:
    """Qwen's kind of tokenizer without its vocabulary: one token a byte, and the special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_only = Tokenizer(models.BPE(vocab={each: number for number, each in enumerate(alphabet)}, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_only.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_only, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
    tokenizer.add_tokens([*special, "<|image_pad|>", "<|video_pad|>"], special_tokens=True)
    return tokenizer


def _image_processor() -> Qwen2VLImageProcessorPil:
    half = [0.5, 0.5, 0.5]
    return Qwen2VLImageProcessorPil(patch_size=16, temporal_patch_size=2, merge_size=2, image_mean=half, image_std=half)
