import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import NETWORK, tiny_options

from SSLSegLib.seeds import named_seed
from SSLSegLib.unimatch.data import Batch
from SSLSegLib.unimatch.guides import StoredGuide
from SSLSegLib.unimatch.losses import IGNORE
from SSLSegLib.unimatch.network import SegmentationNetwork
from SSLSegLib.unimatch.step import step_losses
from SSLSegLib.unimatch.views import draw_cutmix_box

SIDE, CLASSES = 32, 3


def networks() -> tuple[SegmentationNetwork, SegmentationNetwork]:
    torch.manual_seed(0)
    student = SegmentationNetwork(NETWORK, CLASSES)
    teacher = copy.deepcopy(student).eval().requires_grad_(False)
    with torch.no_grad():
        for network, strength in ((student, 0.05), (teacher, 0.08)):
            for parameter in network.parameters():
                parameter.add_(strength * torch.randn_like(parameter))
    return student, teacher


def batch(guided: bool = True) -> Batch:
    draw = torch.Generator().manual_seed(1)

    def pictures() -> torch.Tensor:
        return torch.randint(0, 256, (4, SIDE, SIDE, 3), generator=draw, dtype=torch.uint8)

    labels = torch.randint(0, CLASSES, (4, SIDE, SIDE), generator=draw)
    labels[0, :, 20:] = IGNORE
    ignore = torch.zeros(4, SIDE, SIDE, dtype=torch.bool)
    ignore[2, 25:] = True
    rng = np.random.default_rng(2)
    boxes = [torch.from_numpy(np.stack([draw_cutmix_box(rng, SIDE, 0.9) for _ in range(4)])) for _ in range(2)]
    guide = torch.rand(4, CLASSES - 1, SIDE, SIDE, generator=draw) if guided else None
    return Batch(pictures(), labels, pictures(), (pictures(), pictures()), ignore, tuple(boxes), guide)


def normal(images: torch.Tensor) -> torch.Tensor:
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((images / 255 - mean) / deviation).permute(0, 3, 1, 2)


def plain_step(
    student, teacher, data: Batch, step: int, total: int, tau: float, seed: int, guided: bool
) -> torch.Tensor:
    """The equations as the official training writes them: separate passes, in-place CutMix, nothing shared."""
    with torch.no_grad():
        probability = teacher(normal(data.weak)).softmax(1)
        confidence, label = probability.max(1)
        if guided:
            # One binary probability a class: background where none reaches a half, else the likeliest.
            best, guide_label = data.guide.max(1)
            guide_label = torch.where(best > 0.5, guide_label + 1, 0)
    draw = torch.Generator().manual_seed(named_seed(seed, "dropout", step, 0))
    mask = 2.0 * torch.randint(0, 2, (4, NETWORK.hidden), generator=draw).float()
    kept = torch.randperm(4, generator=draw)[:2]
    masks = [mask.clone(), 2 - mask]
    eta = 0.5 * (1 - math.cos(math.pi * step / total))
    unsupervised = 0
    for strong, box, channel_mask in zip(data.strong, data.boxes, masks, strict=True):
        channel_mask[kept] = 1
        image, y, c, out = normal(strong), label.clone(), confidence.clone(), data.ignore.clone()
        v = guide_label.clone() if guided else None
        for i in range(4):
            image[i][:, box[i]] = normal(strong)[3 - i][:, box[i]]
            y[i][box[i]], c[i][box[i]] = label[3 - i][box[i]], confidence[3 - i][box[i]]
            out[i][box[i]] = data.ignore[3 - i][box[i]]
            if guided:
                v[i][box[i]] = guide_label[3 - i][box[i]]
        features = [level * channel_mask[:, None] for level in student.encode(image)]
        logits = student.decode(features, (SIDE, SIDE))
        sure = (c >= tau) & ~out
        pixels = F.cross_entropy(logits, y, reduction="none")
        if guided:
            pixels = eta * pixels + (1 - eta) * F.cross_entropy(logits, v, reduction="none")
        unsupervised = unsupervised + (pixels * sure).sum() / (~out).sum() / 2
    logits = student(normal(data.images))
    known = data.labels != IGNORE
    supervised = 0.5 * F.cross_entropy(logits, data.labels, ignore_index=IGNORE)
    p = logits.softmax(1)
    for value in range(1, CLASSES):
        y, q = (data.labels == value).float(), p[:, value] * known
        supervised = supervised + 0.5 / (CLASSES - 1) * (1 - 2 * (y * q).sum() / (y.sum() + q.sum() + 1e-5))
    return (supervised + unsupervised) / 2


@pytest.mark.parametrize("guided", [False, True])
def test_one_step_equals_the_equations_written_out_in_loss_and_in_every_gradient(guided):
    data, (student, teacher) = batch(guided), networks()
    with torch.no_grad():
        tau = teacher(normal(data.weak)).softmax(1).max(1).values.median().item()  # half of the pixels pass the gate
    options = tiny_options(threshold=tau, guide="tffs" if guided else "none")
    other = copy.deepcopy(student)
    computed = step_losses(student, teacher, data, options, 2, StoredGuide() if guided else None)
    expected = plain_step(other, teacher, data, 2, options.steps, tau, options.seed, guided)
    assert 0.05 < float(computed.confident) < 0.95
    assert computed.total.item() == pytest.approx(expected.item(), rel=1e-5)
    computed.total.backward()
    expected.backward()
    for (name, one), two in zip(student.named_parameters(), other.parameters(), strict=True):
        if one.requires_grad:
            torch.testing.assert_close(one.grad, two.grad, atol=2e-6, rtol=2e-3, msg=name)


def test_gradient_reaches_the_student_and_neither_teacher_nor_guide():
    data, (student, teacher) = batch(), networks()
    teacher.requires_grad_(True)
    asked = torch.rand(4, CLASSES, SIDE, SIDE, requires_grad=True)
    loss = step_losses(student, teacher, data, tiny_options(guide="tffs"), 3, lambda request: asked.softmax(1)).total
    loss.backward()
    assert all(each.grad is not None for each in student.parameters() if each.requires_grad)
    assert all(each.grad is None for each in teacher.parameters())
    assert asked.grad is None


def test_the_unlabelled_images_teach_nothing_while_the_teacher_is_unsure():
    data, (student, teacher) = batch(), networks()
    losses = step_losses(student, teacher, data, tiny_options(threshold=1.0, guide="tffs"), 0, StoredGuide())
    assert losses.unsupervised.item() == 0
    opened = tiny_options(threshold=1.0, gate="own", guide="tffs")
    data.guide.fill_(1.0)
    sure = step_losses(student, teacher, data, opened.model_copy(update={"threshold": 0.4}), 0, StoredGuide())
    assert sure.unsupervised.item() > 0


def test_the_guide_rules_at_the_start_and_the_teacher_at_the_end():
    data, (student, teacher) = batch(), networks()
    options = tiny_options(guide="tffs", threshold=0.0)
    start = step_losses(student, teacher, data, options, 0, StoredGuide())
    end = step_losses(student, teacher, data, options, options.steps, StoredGuide())
    assert (start.guide_weight, end.guide_weight) == (1.0, 0.0)
    # At the end what the guide says makes no difference; at the start what the teacher says makes none.
    data.guide.copy_(1 - data.guide)
    again = step_losses(student, teacher, data, options, options.steps, StoredGuide())
    assert again.unsupervised.item() == pytest.approx(end.unsupervised.item(), rel=1e-6)


def test_guide_pixels_below_its_confidence_are_left_out():
    data, (student, teacher) = batch(), networks()
    options = tiny_options(guide="tffs", threshold=0.0, guide_confidence=1.0)
    assert step_losses(student, teacher, data, options, 0, StoredGuide()).unsupervised.item() == 0


def test_supervised_training_uses_labelled_images_only():
    data, (student, _) = batch(), networks()
    losses = step_losses(student, student, Batch(data.images, data.labels), tiny_options(method="supervised"), 0)
    logits = student(normal(data.images))
    entropy = F.cross_entropy(logits, data.labels, ignore_index=IGNORE)
    assert losses.total.item() > 0.5 * entropy.item()
    assert losses.unsupervised.item() == 0


def test_the_mean_teacher_baseline_is_its_formula():
    data, (student, teacher) = batch(), networks()
    options = tiny_options(method="mean-teacher", guide="tffs")
    losses = step_losses(student, teacher, data, options, 3, StoredGuide())
    inside = ~data.ignore
    with torch.no_grad():
        probability = student(normal(data.strong[0])).softmax(1)
        teachers = teacher(normal(data.weak)).softmax(1)
        logits = torch.cat([torch.zeros(4, 1, SIDE, SIDE), torch.logit(data.guide, eps=1e-6)], 1)

        def distance(one, other):
            return float(((one - other) ** 2).sum(1)[inside].sum() / inside.sum() / CLASSES)

        ramp = math.exp(-5 * (1 - min(1, 3 / (0.4 * 6))) ** 2)
        falling = 1 - 0.5 * (1 - math.cos(math.pi * 3 / 6))
        expected = 0.1 * ramp * distance(probability, teachers) + 0.5 * falling * distance(
            probability, logits.softmax(1)
        )
    assert losses.unsupervised.item() == pytest.approx(expected, rel=1e-4)
    assert losses.total.item() == pytest.approx(losses.supervised.item() + expected, rel=1e-4)


def test_bfloat16_gives_nearly_the_same_loss_and_float32_gradients():
    data, (student, teacher) = batch(), networks()
    exact = step_losses(student, teacher, data, tiny_options(), 1).total.item()
    mixed = step_losses(student, teacher, data, tiny_options(), 1, autocast=torch.autocast("cpu", torch.bfloat16)).total
    mixed.backward()
    assert mixed.dtype == torch.float32
    assert mixed.item() == pytest.approx(exact, rel=0.05)
    assert all(each.grad.dtype == torch.float32 for each in student.parameters() if each.requires_grad)
