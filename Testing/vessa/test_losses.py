import math

import pytest
import torch

from SSLSegLib.vessa.losses import LossWeights, bce_term, dice_term, mask_loss, text_loss, vessa_loss
from SSLSegLib.vessa.model import VessaOutput


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


@pytest.fixture
def example():
    draw = torch.Generator().manual_seed(0)
    return torch.randn(2, 1, 3, 4, generator=draw) * 2, (torch.rand(2, 1, 3, 4, generator=draw) > 0.5).float()


def test_the_dice_term_of_equation_3_pixel_by_pixel(example):
    logits, masks = example
    per_sample = []
    for row, true in zip(logits.flatten(1).tolist(), masks.flatten(1).tolist(), strict=True):
        found = [sigmoid(each) for each in row]
        both = sum(m * f for m, f in zip(true, found, strict=True))
        per_sample.append(1 - 2 * both / (sum(true) + sum(found) + 1e-6))
    assert dice_term(logits, masks).item() == pytest.approx(sum(per_sample) / 2, abs=1e-6)


def test_the_cross_entropy_term_of_equation_3_pixel_by_pixel(example):
    logits, masks = example
    total = 0.0
    for value, m in zip(logits.flatten().tolist(), masks.flatten().tolist(), strict=True):
        total += m * math.log(sigmoid(value)) + (1 - m) * math.log(1 - sigmoid(value))
    assert bce_term(logits, masks).item() == pytest.approx(-total / logits.numel(), abs=1e-6)


def test_equation_3_weighs_its_terms(example):
    weights = LossWeights(dice=0.3, bce=0.7)
    expected = 0.3 * dice_term(*example) + 0.7 * bce_term(*example)
    assert mask_loss(*example, weights).item() == pytest.approx(expected.item())


def test_the_text_term_of_equation_2_token_by_token():
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
    targets = torch.tensor([1, 0])
    said = []
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        said.append(-math.log(math.exp(row[target]) / sum(math.exp(each) for each in row)))
    assert text_loss(logits, targets, "sum").item() == pytest.approx(sum(said), abs=1e-6)
    assert text_loss(logits, targets).item() == pytest.approx(sum(said) / 2, abs=1e-6)


def test_equation_2_joins_text_mask_and_presence():
    draw = torch.Generator().manual_seed(1)
    logits, presence = torch.randn(2, 1, 4, 4, generator=draw), torch.tensor([[0.5], [-1.0]])
    text, targets = torch.randn(3, 7, generator=draw), torch.tensor([1, 2, 3])
    masks = torch.zeros(2, 1, 4, 4)
    masks[0, 0, 1:3, 1:3] = 1  # the second target lacks the structure
    weights = LossWeights(text=0.9, mask=1.3, dice=0.4, bce=1.7, presence=0.6)
    losses = vessa_loss(VessaOutput(logits, presence, text, targets), masks, weights)
    said = -(math.log(sigmoid(0.5)) + math.log(1 - sigmoid(-1.0))) / 2
    expected = 0.9 * text_loss(text, targets) + 1.3 * mask_loss(logits, masks, weights) + 0.6 * said
    assert losses.total.item() == pytest.approx(expected.item(), abs=1e-5)
    assert losses.presence.item() == pytest.approx(said, abs=1e-6)


def test_without_language_model_there_is_no_text_term():
    losses = vessa_loss(VessaOutput(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1)), torch.ones(1, 1, 8, 8))
    assert losses.text == 0
    assert torch.isfinite(losses.total)


def test_an_empty_target_pulls_the_logits_down_by_the_cross_entropy_alone():
    logits = torch.zeros(1, 1, 4, 4, requires_grad=True)
    dice_term(logits, torch.zeros(1, 1, 4, 4)).backward()
    assert logits.grad.abs().max() < 1e-6
    bce_term(logits, torch.zeros(1, 1, 4, 4)).backward()
    assert (logits.grad > 0).all()
