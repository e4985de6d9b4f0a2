"""Pictures and words as Qwen3-VL reads them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from SSLSegLib.vessa.configuration import LanguageConfiguration
from SSLSegLib.vessa.pictures import overlay, square
from SSLSegLib.vessa.prompts import SEG_TOKEN

__all__ = ["IGNORED", "LanguageInputs", "Prompter"]

IGNORED = -100
"""Label of positions that are not to be predicted."""

_MERGED = 32  # pixels along the side of a visual token: patches of 16, merged two by two


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
        labels = torch.full((len(rows), longest), IGNORED)
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
