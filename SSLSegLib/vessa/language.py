"""The language model's side of VESSA: Qwen3-VL sees target and template, and says <SEG>."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import torch
from torch import nn
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
from SSLSegLib.vessa.pictures import overlay, square
from SSLSegLib.vessa.prompts import SEG_TOKEN

__all__ = ["LanguageInputs", "LanguageModel", "LanguageOutput", "Prompter", "load_language"]

_IGNORED = -100
_MERGED = 32  # pixels along the side of a visual token: patches of 16, merged two by two
_LORA_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


@dataclass(frozen=True)
class LanguageInputs:
    """What the language model reads, for B pairs.

    Args:
        input_ids: (B, T), padded on the right.
        attention_mask: (B, T).
        mm_token_type_ids: (B, T), 1 at image tokens.
        pixel_values: (patches, 1536), all images of all pairs in a row.
        image_grid_thw: (2 B, 3).
        labels: (B, T), the token that stands at each position of the answer; -100 elsewhere.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    mm_token_type_ids: torch.Tensor
    pixel_values: torch.Tensor
    image_grid_thw: torch.Tensor
    labels: torch.Tensor

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        return type(self)(**{each.name: getattr(self, each.name).to(device) for each in fields(self)})


@dataclass(frozen=True)
class LanguageOutput:
    """What it answers.

    Args:
        prompts: h_seg, float32 (B, C).
        text_logits: (n, vocabulary), the prediction of every token of the answers in a row.
        text_targets: (n,), those tokens.
    """

    prompts: torch.Tensor
    text_logits: torch.Tensor
    text_targets: torch.Tensor


class Prompter:
    """Pictures and words to :class:`LanguageInputs`.

    The layout is Qwen's: the user's turn with both images (target first, as in the text), the instruction, then the
    assistant's answer, which is given always (teacher forcing in training, a fixed answer at inference).

    Args:
        tokenizer: With <SEG> added.
        images: Transformers' image processor (the one on Pillow: torchvision is not needed).
        configuration: Of the language model.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        images: Qwen2VLImageProcessorPil,
        configuration: LanguageConfiguration,
    ) -> None:
        self.tokenizer, self.images, self.configuration = tokenizer, images, configuration
        self.seg = tokenizer.convert_tokens_to_ids(SEG_TOKEN)
        self.image_pad = tokenizer.convert_tokens_to_ids("<|image_pad|>")
        self.padding = tokenizer.convert_tokens_to_ids("<|endoftext|>")
        self.tokens_per_image = (configuration.image_side // _MERGED) ** 2

    def __call__(
        self,
        targets: Sequence[np.ndarray],
        templates: Sequence[np.ndarray],
        masks: Sequence[np.ndarray],
        instructions: Sequence[str],
        answers: Sequence[str],
    ) -> LanguageInputs:
        """Put B pairs together.

        Args:
            targets: uint8 (J, I, 3) each.
            templates: The same.
            masks: bool (J, I) of each template, drawn over it in green.
            instructions, answers: Texts; each answer holds <SEG> once.

        Raises:
            ValueError: An answer does not hold <SEG> exactly once.
        """
        side, alpha = self.configuration.image_side, self.configuration.overlay_alpha
        pictures = []
        for target, template, mask in zip(targets, templates, masks, strict=True):
            pictures += [square(target, side), square(overlay(template, mask, alpha), side)]
        seen = self.images(images=pictures, return_tensors="pt", do_resize=False)
        rows = [self._tokens(question, answer) for question, answer in zip(instructions, answers, strict=True)]
        longest = max(len(ids) for ids, _ in rows)
        input_ids = torch.full((len(rows), longest), self.padding)
        labels = torch.full((len(rows), longest), _IGNORED)
        attention = torch.zeros(len(rows), longest, dtype=torch.long)
        for row, (ids, start) in enumerate(rows):
            input_ids[row, : len(ids)] = torch.tensor(ids)
            labels[row, start : len(ids)] = torch.tensor(ids[start:])
            attention[row, : len(ids)] = 1
        return LanguageInputs(
            input_ids=input_ids,
            attention_mask=attention,
            mm_token_type_ids=(input_ids == self.image_pad).int(),
            pixel_values=seen["pixel_values"],
            image_grid_thw=seen["image_grid_thw"],
            labels=labels,
        )

    def _tokens(self, question: str, answer: str) -> tuple[list[int], int]:
        """Tokens of a dialogue, and where the answer begins."""
        image = "<|vision_start|>" + "<|image_pad|>" * self.tokens_per_image + "<|vision_end|>"
        asked = self._encode(f"<|im_start|>user\n{image}{image}{question}<|im_end|>\n<|im_start|>assistant\n")
        answered = self._encode(f"{answer}<|im_end|>\n")
        if answered.count(self.seg) != 1:
            raise ValueError(f"The answer {answer!r} must hold {SEG_TOKEN} once.")
        return asked + answered, len(asked)

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]


class LanguageModel(nn.Module):
    """Qwen3-VL with LoRA and the row of the new token, and the projector into SAM2's prompt space.

    Args:
        qwen: ``Qwen3VLForConditionalGeneration``, its embedding long enough for the new token.
        prompter: Makes its inputs.
        configuration: How it is adapted.
        width: C, of SAM2's prompts.
    """

    def __init__(
        self,
        qwen: Qwen3VLForConditionalGeneration,
        prompter: Prompter,
        configuration: LanguageConfiguration,
        width: int,
    ) -> None:
        super().__init__()
        self.configuration, self.prompter = configuration, prompter
        self.adapted = _adapted(qwen, configuration)
        self._learn_row(qwen)
        hidden = qwen.config.text_config.hidden_size
        # As in LISA and Sa2VA.
        self.projector = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.Dropout(0.0))

    @property
    def qwen(self) -> Qwen3VLForConditionalGeneration:
        """The model inside the adapter."""
        return self.adapted.get_base_model()

    def forward(self, inputs: LanguageInputs, *, text: bool = True) -> LanguageOutput:
        """h_seg = MLP(Emb_VLM(<SEG>)): the last layer's state, after its norm, at the token itself.

        Sa2VA takes this position, LISA the one before; here one forward pass serves training and inference alike, and
        the answer is given in both.

        Args:
            inputs: Of B pairs.
            text: Predict the answer's words too (training). The vocabulary is large: only these positions get logits.
        """
        # The images are frozen inputs: their tower needs no gradient, so that activations are not kept for it.
        states = self.qwen.model(
            input_ids=inputs.input_ids,
            attention_mask=inputs.attention_mask,
            mm_token_type_ids=inputs.mm_token_type_ids,
            pixel_values=inputs.pixel_values,
            image_grid_thw=inputs.image_grid_thw,
            use_cache=False,
        ).last_hidden_state
        at_seg = states[inputs.input_ids == self.prompter.seg]
        with torch.autocast(at_seg.device.type, enabled=False):
            prompts = self.projector(at_seg.float())
        if not text:
            nothing = states.new_empty(0)
            return LanguageOutput(prompts, nothing, nothing.long())
        answered = inputs.labels[:, 1:] != _IGNORED  # each token is predicted by the state before it
        return LanguageOutput(
            prompts, self.qwen.lm_head(states[:, :-1][answered]).float(), inputs.labels[:, 1:][answered]
        )

    def _learn_row(self, qwen: Qwen3VLForConditionalGeneration) -> None:
        """Rows of <SEG>, in float32, in place of those of the frozen matrices (one row where these are tied).

        They are put in where the matrices are used. A matrix with a row of its own in it would be a copy of the whole
        (0.6 GB at 2B), made in every pass, with a gradient of the same size.
        """
        reading, scoring = qwen.get_input_embeddings(), qwen.get_output_embeddings()
        self.seg_read = nn.Parameter(reading.weight[self.prompter.seg].detach().float().clone())
        self.seg_scored = self.seg_read
        if scoring.weight is not reading.weight:
            self.seg_scored = nn.Parameter(scoring.weight[self.prompter.seg].detach().float().clone())
        reading.register_forward_hook(self._read)
        scoring.register_forward_hook(self._score)

    def _read(self, _: nn.Module, inputs: tuple[torch.Tensor], states: torch.Tensor) -> torch.Tensor:
        return torch.where((inputs[0] == self.prompter.seg)[..., None], self.seg_read.to(states.dtype), states)

    def _score(self, _: nn.Module, inputs: tuple[torch.Tensor], logits: torch.Tensor) -> torch.Tensor:
        score = inputs[0] @ self.seg_scored.to(inputs[0].dtype)
        return logits.index_copy(-1, torch.tensor([self.prompter.seg], device=logits.device), score[..., None])

    def checkpoint_activations(self) -> None:
        """Compute activations of the language model again in the backward pass instead of keeping them."""
        self.qwen.activation_checkpointing_enable({"use_reentrant": False})


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


def _adapted(qwen: Qwen3VLForConditionalGeneration, configuration: LanguageConfiguration) -> nn.Module:
    """LoRA on the language model, everything else frozen."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise WeightsError(
            "The package peft is not installed, which VESSA's language model needs.",
            remedy="Install it (pip install 'sslseg[training]'), or go without the language model.",
        ) from None

    adapter = LoraConfig(
        r=configuration.lora_rank,
        lora_alpha=configuration.lora_alpha,
        lora_dropout=configuration.lora_dropout,
        target_modules=_LORA_TARGETS,
    )
    adapted = get_peft_model(qwen, adapter)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # trained in float32 whatever the frozen weights are
    return adapted


def _from_source(source: str, dtype: torch.dtype, download: bool) -> tuple[Any, Any, Any]:
    here = {"local_files_only": not download}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **here)
        images = Qwen2VLImageProcessorPil.from_pretrained(source, **here)
        qwen = Qwen3VLForConditionalGeneration.from_pretrained(source, dtype=dtype, use_safetensors=True, **here)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise WeightsError(
            f"No Qwen3-VL can be loaded from '{source}': {str(error).splitlines()[0]}",
            remedy="Name a folder with its files, allow the download with --download, or choose --without-vlm.",
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
