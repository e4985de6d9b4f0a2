import math

import pytest
import torch

from SSLSegLib.unimatch.losses import (
    IGNORE,
    Targets,
    consistency_loss,
    dice_loss,
    gates,
    hard_targets,
    joint_loss,
    supervised_loss,
    total_loss,
)

GENERATOR = torch.Generator().manual_seed(0)
SHAPE = (2, 3, 4, 5)


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR)


def labels() -> torch.Tensor:
    return torch.randint(0, 3, (2, 4, 5), generator=GENERATOR)


def targets(guided: bool = True) -> Targets:
    confidence = torch.rand(2, 4, 5, generator=GENERATOR)
    ignore = torch.rand(2, 4, 5, generator=GENERATOR) < 0.2
    guide = (labels(), torch.rand(2, 4, 5, generator=GENERATOR)) if guided else (None, None)
    return Targets(labels(), confidence, ignore, *guide)


def plain_entropy(logits: torch.Tensor, b: int, r: int, c: int, label: int) -> float:
    scores = [float(value) for value in logits[b, :, r, c]]
    return math.log(sum(math.exp(score) for score in scores)) - scores[label]


def plain_joint(views, all_targets, tau, alpha_t, alpha_v) -> float:
    """Equation 8 written out pixel by pixel, with the official divisor."""
    total = 0.0
    for logits, target in zip(views, all_targets, strict=True):
        summed, inside = 0.0, 0
        for b in range(2):
            for r in range(4):
                for c in range(5):
                    if target.ignore[b, r, c]:
                        continue
                    inside += 1
                    if target.confidence[b, r, c] < tau:
                        continue
                    summed += alpha_t * plain_entropy(logits, b, r, c, int(target.label[b, r, c]))
                    if target.guide_label is not None:
                        summed += alpha_v * plain_entropy(logits, b, r, c, int(target.guide_label[b, r, c]))
        total += summed / inside
    return total / 2


def test_the_joint_loss_is_equation_8_pixel_by_pixel():
    views, both = (draw(*SHAPE), draw(*SHAPE)), (targets(), targets())
    computed = joint_loss(views, both, threshold=0.4, teacher_weight=0.3, guide_weight=0.7)
    assert float(computed) == pytest.approx(plain_joint(views, both, 0.4, 0.3, 0.7), rel=1e-5)


def test_without_a_guide_the_joint_loss_is_equation_5():
    views, both = (draw(*SHAPE), draw(*SHAPE)), (targets(guided=False), targets(guided=False))
    assert float(joint_loss(views, both, threshold=0.6)) == pytest.approx(
        plain_joint(views, both, 0.6, 1.0, 0.0), rel=1e-5
    )


def test_the_supervised_loss_is_equation_4_written_out():
    logits, truth = draw(*SHAPE), labels()
    truth[0, 0] = IGNORE
    entropy, pixels, dices = 0.0, 0, []
    probability = logits.softmax(1)
    for value in (1, 2):
        common = size_truth = size_found = 0.0
        for b in range(2):
            for r in range(4):
                for c in range(5):
                    if truth[b, r, c] == IGNORE:
                        continue
                    y, p = float(truth[b, r, c] == value), float(probability[b, value, r, c])
                    common, size_truth, size_found = common + y * p, size_truth + y, size_found + p
                    if value == 1:
                        entropy, pixels = entropy + plain_entropy(logits, b, r, c, int(truth[b, r, c])), pixels + 1
        dices.append(1 - 2 * common / (size_truth + size_found + 1e-5))
    expected = 0.3 * entropy / pixels + 0.9 * sum(dices) / 2
    assert float(supervised_loss(logits, truth, 0.3, 0.9)) == pytest.approx(expected, rel=1e-5)


def test_equation_6_and_9_with_and_without_the_official_halving():
    one, two = torch.tensor(0.5), torch.tensor(0.25)
    assert float(total_loss(one, two, 2.0, halved=False)) == 1.0
    assert float(total_loss(one, two, 2.0)) == 0.5


def one_row(teacher: list[float], guide: list[float], ignored: list[int] = ()) -> Targets:
    ignore = torch.zeros(1, 1, len(teacher), dtype=torch.bool)
    ignore[..., list(ignored)] = True
    label = torch.zeros(1, 1, len(teacher), dtype=torch.long)
    return Targets(label, torch.tensor([[teacher]]), ignore, label + 1, torch.tensor([[guide]]))


@pytest.mark.parametrize(
    ("gate", "teacher_speaks", "guide_speaks"),
    [
        ("teacher", [1, 1, 0, 0, 0], [1, 1, 0, 0, 0]),
        ("own", [1, 1, 0, 0, 0], [1, 0, 1, 0, 0]),
        ("either", [1, 1, 1, 0, 0], [1, 1, 1, 0, 0]),
    ],
)
def test_the_gate_of_equation_8_silences_both_and_the_alternatives_each_or_none(gate, teacher_speaks, guide_speaks):
    target = one_row([0.95, 0.99, 0.5, 0.5, 1.0], [0.99, 0.5, 0.95, 0.5, 1.0], ignored=[4])
    teacher, guide = gates(target, 0.95, gate)
    assert teacher.flatten().int().tolist() == teacher_speaks
    assert guide.flatten().int().tolist() == guide_speaks


def test_the_loss_is_divided_by_pixels_inside_the_image_not_by_confident_ones():
    logits = torch.zeros(1, 2, 1, 4)
    target = one_row([1.0, 0.1, 0.1, 1.0], [0.0] * 4, ignored=[3])
    loss = joint_loss((logits, logits), (target, target), threshold=0.95)
    assert float(loss) == pytest.approx(math.log(2) / 3)


def test_pixels_where_the_guide_says_nothing_are_left_to_the_teacher():
    target = one_row([1.0, 1.0], [1.0, 1.0])
    target.guide_label[..., 1] = IGNORE
    logits = torch.tensor([[[[0.0, 3.0]], [[2.0, 0.0]]]])
    loss = joint_loss((logits,), (target,), threshold=0.95, teacher_weight=0.0, guide_weight=1.0)
    expected = plain_entropy(logits, 0, 0, 0, 1) / 2
    assert float(loss) == pytest.approx(expected)


def test_no_gradient_comes_from_ignored_or_gated_pixels():
    logits = draw(1, 3, 1, 4).requires_grad_()
    target = one_row([1.0, 0.2, 1.0, 0.2], [1.0] * 4, ignored=[2])
    joint_loss((logits, logits), (target, target), threshold=0.95, teacher_weight=0.5, guide_weight=0.5).backward()
    assert (logits.grad.abs().sum(1) > 0).flatten().tolist() == [True, False, False, False]


def test_dice_is_zero_for_a_perfect_answer_and_one_for_a_wrong_one():
    truth = torch.tensor([[[0, 1, 2, 1]]])
    sure = 40.0 * torch.nn.functional.one_hot(truth, 3).movedim(-1, 1).float()
    assert float(dice_loss(sure, truth)) == pytest.approx(0, abs=1e-5)
    assert float(dice_loss(sure.roll(1, dims=1), truth)) == pytest.approx(1, abs=1e-4)


def test_everything_ignored_gives_zero_and_not_a_number_that_is_none():
    nothing = torch.full((1, 1, 2), IGNORE)
    logits = draw(1, 3, 1, 2).requires_grad_()
    target = one_row([1.0, 1.0], [1.0, 1.0], ignored=[0, 1])
    loss = supervised_loss(logits, nothing, 1.0, 0.0) + joint_loss((logits,), (target,), threshold=0.5)
    loss.backward()
    assert loss.item() == 0
    assert torch.isfinite(logits.grad).all()


def test_hard_targets_are_the_largest_probability_and_its_class():
    label, confidence = hard_targets(torch.tensor([[[[0.2, 0.7]], [[0.8, 0.3]]]]))
    assert label.tolist() == [[[1, 0]]]
    assert confidence[0, 0].tolist() == pytest.approx([0.8, 0.7])


def test_consistency_is_the_mean_square_over_pixels_inside():
    logits, other = draw(1, 3, 2, 2), draw(1, 3, 2, 2).softmax(1)
    ignore = torch.tensor([[[False, True], [False, False]]])
    square = (logits.softmax(1) - other) ** 2
    expected = (square.sum(1)[~ignore]).sum() / 9
    assert float(consistency_loss(logits, other, ignore)) == pytest.approx(float(expected), rel=1e-5)
