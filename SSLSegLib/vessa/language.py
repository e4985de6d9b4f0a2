"""The language model's side of VESSA: Qwen3-VL sees target and template, and says <SEG>."""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import Qwen3VLForConditionalGeneration

from SSLSegLib.errors import WeightsError
from SSLSegLib.vessa.configuration import LanguageConfiguration
from SSLSegLib.vessa.prompter import IGNORED, LanguageInputs, Prompter

__all__ = ["LanguageModel", "LanguageOutput"]

_LORA_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


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
        answered = inputs.labels[:, 1:] != IGNORED  # each token is predicted by the state before it
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
