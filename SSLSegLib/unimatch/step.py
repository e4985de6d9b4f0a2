"""One training step: figure 2 of paper 2, without the optimiser."""

from dataclasses import dataclass

import torch
from torch import nn

from SSLSegLib.seeds import named_rng, named_seed
from SSLSegLib.unimatch.data import Batch
from SSLSegLib.unimatch.guides import Guide, GuideRequest
from SSLSegLib.unimatch.losses import (
    IGNORE,
    Targets,
    consistency_loss,
    gates,
    hard_targets,
    joint_loss,
    supervised_loss,
    total_loss,
)
from SSLSegLib.unimatch.network import complementary_masks
from SSLSegLib.unimatch.options import UniMatchOptions
from SSLSegLib.unimatch.schedules import cosine_ramp, sigmoid_ramp
from SSLSegLib.unimatch.views import cutmix, normalise

__all__ = ["StepLosses", "step_losses"]


@dataclass(frozen=True)
class StepLosses:
    """What a step says.

    Args:
        total: To be minimised.
        supervised, unsupervised: Its parts, without gradient.
        confident: Part of the pixels inside the images where the teacher is confident.
        guide_weight: alpha_v.
        guide_agreement: Part of the pixels that teacher or guide call foreground on which both agree; NaN without.
    """

    total: torch.Tensor
    supervised: torch.Tensor
    unsupervised: torch.Tensor
    confident: torch.Tensor
    guide_weight: float
    guide_agreement: torch.Tensor


def step_losses(
    student: nn.Module,
    teacher: nn.Module,
    batch: Batch,
    options: UniMatchOptions,
    step: int,
    guide: Guide | None = None,
    *,
    rank: int = 0,
    autocast: torch.autocast | None = None,
) -> StepLosses:
    """Losses of one step.

    Args:
        student, teacher: Networks as :class:`SSLSegLib.unimatch.network.SegmentationNetwork`.
        batch: On their device.
        options: Of the run.
        step: From 0.
        guide: Second supervisor.
        rank: Of this process among several that train together.
        autocast: Precision of the networks; losses are float32 always.
    """
    run = _Step(student, teacher, batch, options, step, guide, rank, autocast or torch.autocast("cpu", enabled=False))
    if not options.uses_unlabelled:
        return run.supervised_only()
    return run.mean_teacher() if options.method == "mean-teacher" else run.unimatch()


@dataclass(frozen=True)
class _Step:
    student: nn.Module
    teacher: nn.Module
    batch: Batch
    options: UniMatchOptions
    step: int
    guide: Guide | None
    rank: int
    autocast: torch.autocast

    def supervised_only(self) -> StepLosses:
        logits = self._predict(self.student, normalise(self.batch.images))
        loss = self._supervised(logits)
        nothing = torch.zeros((), device=loss.device)
        return StepLosses(loss, loss.detach(), nothing, nothing, 0.0, nothing + torch.nan)

    def unimatch(self) -> StepLosses:
        """Equations 4 to 9."""
        batch, options = self.batch, self.options
        prediction = self._teacher_probability()
        said = self._ask_guide(prediction)
        views = [cutmix(normalise(strong), boxes) for strong, boxes in zip(batch.strong, batch.boxes, strict=True)]
        logits, *strong = self._student_pass(views)
        targets = self._targets(prediction, said)
        eta = cosine_ramp(self.step, options.steps)
        guided = said is not None
        supervised = self._supervised(logits)
        unsupervised = joint_loss(
            strong,
            targets,
            threshold=options.threshold,
            teacher_weight=eta if guided else 1.0,
            guide_weight=1 - eta if guided else 0.0,
            gate=options.gate,
        )
        total = total_loss(supervised, unsupervised, options.unsupervised_weight, halved=options.halved)
        return self._said(total, supervised, unsupervised, prediction, said, 1 - eta if guided else 0.0)

    def mean_teacher(self) -> StepLosses:
        """Mean teacher, and the square difference to SAM, whose weight falls while the teacher's rises."""
        batch, weights = self.batch, self.options.mean_teacher
        prediction = self._teacher_probability()
        said = self._ask_guide(prediction)
        images = torch.cat([normalise(batch.images), normalise(batch.strong[0])])
        logits, other = self._predict(self.student, images).split([len(batch.images), len(batch.weak)])
        supervised = self._supervised(logits)
        ramp = sigmoid_ramp(self.step, weights.ramp * self.options.steps)
        unsupervised = weights.consistency * ramp * consistency_loss(other, prediction, batch.ignore)
        guide_weight = 0.0
        if said is not None:
            guide_weight = weights.guide * (1 - cosine_ramp(self.step, self.options.steps))
            unsupervised = unsupervised + guide_weight * consistency_loss(other, said, batch.ignore)
        return self._said(supervised + unsupervised, supervised, unsupervised, prediction, said, guide_weight)

    def _student_pass(self, views: list[torch.Tensor]) -> list[torch.Tensor]:
        """Labelled images and both strong views in one pass; only the strong ones lose channels."""
        labelled = normalise(self.batch.images)
        count, channels = len(views[0]), self.options.network.hidden
        generator = torch.Generator().manual_seed(named_seed(self.options.seed, "dropout", self.step, self.rank))
        masks = torch.cat([torch.ones(len(labelled), channels), *complementary_masks(count, channels, generator)])
        images = torch.cat([labelled, *views])
        logits = self._predict(self.student, images, masks.to(images.device))
        return list(logits.split([len(labelled), count, count]))

    def _predict(self, network: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
        with self.autocast:
            return network(*inputs).float()

    @torch.no_grad()
    def _teacher_probability(self) -> torch.Tensor:
        return self._predict(self.teacher, normalise(self.batch.weak)).softmax(1)

    @torch.no_grad()
    def _ask_guide(self, prediction: torch.Tensor) -> torch.Tensor | None:
        if self.guide is None:
            return None
        prompting = prediction
        if self.options.guide == "sam2" and self.options.prompting.by == "student":
            prompting = self._predict(self.student, normalise(self.batch.weak)).softmax(1)
        request = GuideRequest(
            images=self.batch.weak,
            prediction=prompting,
            stored=self.batch.guide,
            fraction=self.step / self.options.steps,
            rng=named_rng(self.options.seed, "guide", self.step, self.rank),
            origins=self.batch.origins,
        )
        return self.guide(request)

    def _targets(self, prediction: torch.Tensor, said: torch.Tensor | None) -> list[Targets]:
        """Hard labels of teacher and guide, moved by CutMix as the pixels of each view were."""
        label, confidence = hard_targets(prediction)
        guide: tuple[torch.Tensor, ...] = ()
        if said is not None:
            guide_label, guide_confidence = hard_targets(said)
            unsure = guide_confidence < self.options.guide_confidence
            guide = (guide_label.masked_fill(unsure, IGNORE), guide_confidence)
        maps = (label, confidence, self.batch.ignore, *guide)
        return [Targets(*(cutmix(each, boxes) for each in maps)) for boxes in self.batch.boxes]

    def _supervised(self, logits: torch.Tensor) -> torch.Tensor:
        return supervised_loss(logits, self.batch.labels, self.options.ce_weight, self.options.dice_weight)

    @torch.no_grad()
    def _said(self, total, supervised, unsupervised, prediction, said, guide_weight: float) -> StepLosses:
        label, confidence = hard_targets(prediction)
        plain = Targets(label, confidence, self.batch.ignore)
        inside = ~self.batch.ignore
        confident = gates(plain, self.options.threshold)[0].sum() / inside.sum().clamp(min=1)
        agreement = torch.full((), torch.nan, device=total.device)
        if said is not None:
            other = said.argmax(1)
            either = ((label > 0) | (other > 0)) & inside
            agreement = ((label == other) & either).sum() / either.sum()
        return StepLosses(total, supervised.detach(), unsupervised.detach(), confident, guide_weight, agreement)
