"""VESSA: the language model and SAM2's memory joined at the mask decoder (paper 2, figure 2a and section 3.1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import nn

from SSLSegLib.vessa.configuration import VessaConfiguration
from SSLSegLib.vessa.language import LanguageModel
from SSLSegLib.vessa.language_loading import load_language
from SSLSegLib.vessa.pictures import masks_to_frames, pictures_to_frames
from SSLSegLib.vessa.prompter import LanguageInputs
from SSLSegLib.vessa.prompts import FIXED_ANSWER, instruction
from SSLSegLib.vessa.segmenter import Levels, Memory, TemplateSegmenter
from SSLSegLib.weights.sam2_model import build_sam2

__all__ = ["Pairs", "Vessa", "VessaOutput", "build_vessa"]


@dataclass(frozen=True)
class Pairs:
    """B pairs of target and template.

    Args:
        targets: float32 (B, 3, S, S), frames of SAM2.
        templates: float32 (B, 3, S, S).
        template_masks: Binary, float32 (B, 1, S, S).
        language: What the language model reads; None without it.
    """

    targets: torch.Tensor
    templates: torch.Tensor
    template_masks: torch.Tensor
    language: LanguageInputs | None = None

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        language = None if self.language is None else self.language.to(device)
        return type(self)(self.targets.to(device), self.templates.to(device), self.template_masks.to(device), language)


@dataclass(frozen=True)
class VessaOutput:
    """What VESSA says of B pairs.

    Args:
        logits: Of the masks, (B, 1, 4h, 4w), before the gate of the presence.
        presence: (B, 1), above 0 where the structure is in the target.
        text_logits, text_targets: See :class:`~SSLSegLib.vessa.language.LanguageOutput`; None without the language
            model.
    """

    logits: torch.Tensor
    presence: torch.Tensor
    text_logits: torch.Tensor | None = None
    text_targets: torch.Tensor | None = None


class Vessa(nn.Module):
    """The model.

    Args:
        segmenter: SAM2's side.
        language: The language model's side; None: "without VLM".
        configuration: How it was built.
    """

    def __init__(
        self, segmenter: TemplateSegmenter, language: LanguageModel | None, configuration: VessaConfiguration
    ) -> None:
        super().__init__()
        self.segmenter, self.language, self.configuration = segmenter, language, configuration

    def forward(self, pairs: Pairs) -> VessaOutput:
        """One teacher-forced pass.

        h_seg = MLP(Emb_VLM(<SEG>));  f_img = E_vision(x_img);  f_memory = E_memory(x_temp, m_temp);
        q = Attention(f_img, f_memory);  m_pred = D_mask(E_prompt(h_seg), q).
        """
        said = None
        if self.language is not None:
            said = self.language(pairs.language, text=True)
        levels = self.segmenter.encode(pairs.targets)
        attended = self.segmenter.attend(levels, self.remember(pairs.templates, pairs.template_masks))
        decoded = self.segmenter.decode(attended, levels[:-1], None if said is None else said.prompts, gate=False)
        if said is None:
            return VessaOutput(decoded.logits, decoded.presence)
        return VessaOutput(decoded.logits, decoded.presence, said.text_logits, said.text_targets)

    def remember(self, templates: torch.Tensor, masks: torch.Tensor) -> Memory | None:
        """The memory of template frames and masks; None in the ablation "without memory"."""
        if not self.configuration.memory:
            return None
        return self.segmenter.remember(self.segmenter.encode(templates), masks)

    @torch.no_grad()
    def prompts(
        self,
        targets: Sequence[np.ndarray],
        templates: Sequence[np.ndarray],
        masks: Sequence[np.ndarray],
        phrases: Sequence[str | None] | None = None,
    ) -> torch.Tensor | None:
        """h_seg (B, C) of pairs of pictures by the fixed instruction and answer; None without the language model.

        Args:
            targets, templates: uint8 (J, I, 3) each.
            masks: bool (J, I) of each template.
            phrases: Names of the structures, to be told to the language model.
        """
        if self.language is None:
            return None
        asked = [instruction(1, phrase) for phrase in (phrases or [None] * len(targets))]
        inputs = self.language.prompter(targets, templates, masks, asked, [FIXED_ANSWER] * len(targets))
        return self.language(inputs.to(self.device), text=False).prompts

    def pairs(
        self,
        targets: Sequence[np.ndarray],
        templates: Sequence[np.ndarray],
        masks: Sequence[np.ndarray],
        instructions: Sequence[str],
        answers: Sequence[str],
    ) -> Pairs:
        """Pictures and texts as the model takes them; see :class:`~SSLSegLib.vessa.prompter.Prompter`."""
        side = self.segmenter.side
        language = None
        if self.language is not None:
            language = self.language.prompter(targets, templates, masks, instructions, answers)
        return Pairs(
            pictures_to_frames(targets, side),
            pictures_to_frames(templates, side),
            masks_to_frames(masks, side),
            language,
        )

    def encode(self, pictures: Sequence[np.ndarray]) -> Levels:
        """Image features of pictures, on the model's device."""
        return self.segmenter.encode(pictures_to_frames(pictures, self.segmenter.side).to(self.device))

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        return self.segmenter.sam2.device

    def train(self, mode: bool = True) -> Self:
        """Training mode; the frozen image encoder stays as it is at inference (no stochastic depth)."""
        super().train(mode)
        self.segmenter.sam2.image_encoder.eval()
        return self

    def train_what_is_trained(self) -> None:
        """Stage 1: LoRA, the new token's rows, the projector, and the parts of SAM2 behind its image encoder."""
        self.segmenter.requires_grad_(False)
        for part in self.segmenter.trained_parts():
            part.requires_grad_(True)
        # Run inside the frozen image encoding.
        for name in ("conv_s0", "conv_s1"):
            if hasattr(self.segmenter.sam2.sam_mask_decoder, name):
                getattr(self.segmenter.sam2.sam_mask_decoder, name).requires_grad_(False)
        if not self.configuration.memory:
            for part in (self.segmenter.sam2.memory_encoder, self.segmenter.sam2.memory_attention):
                part.requires_grad_(False)


def build_vessa(
    configuration: VessaConfiguration,
    *,
    sam2: nn.Module | None = None,
    seed: int = 0,
    download: bool = False,
) -> Vessa:
    """Put a VESSA together, in eval mode.

    Args:
        configuration: How.
        sam2: With weights (:func:`SSLSegLib.weights.loading.load_sam2`); random ones without.
        seed: Of what is random.
        download: See :func:`~SSLSegLib.vessa.language_loading.load_language`.

    Raises:
        WeightsError: Weights of the language model are not here.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sam2 = build_sam2(configuration.sam2) if sam2 is None else sam2
    segmenter = TemplateSegmenter(sam2, single_mask=configuration.single_mask)
    language = None
    if configuration.language is not None:
        language = load_language(configuration.language, segmenter.width, seed=seed, download=download)
    return Vessa(segmenter, language, configuration).eval()
