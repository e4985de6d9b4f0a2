import copy

import pytest
import torch

from SSLSegLib.unimatch.schedules import cosine_ramp, ema_ratio, poly, sigmoid_ramp, update_teacher


def test_schedules_start_and_end_where_the_papers_say():
    assert (poly(0, 100), poly(100, 100)) == (1.0, 0.0)
    assert poly(50, 100) == pytest.approx(0.5**0.9)
    assert (cosine_ramp(0, 100), cosine_ramp(100, 100)) == (0.0, 1.0)
    assert cosine_ramp(50, 100) == pytest.approx(0.5)
    assert sigmoid_ramp(0, 40) == pytest.approx(0.0067, abs=1e-4)
    assert sigmoid_ramp(40, 40) == sigmoid_ramp(90, 40) == 1.0


@pytest.mark.parametrize("schedule", [lambda t: -poly(t, 50), lambda t: cosine_ramp(t, 50), ema_ratio])
def test_schedules_never_turn_back(schedule):
    values = [schedule(step) for step in range(60)]
    assert values == sorted(values)


def test_the_teachers_ratio_starts_with_a_copy_and_stays_at_its_most():
    assert [ema_ratio(step) for step in (0, 1, 3, 249, 10_000)] == [0.0, 0.5, 0.75, 0.996, 0.996]


def test_the_teacher_is_a_moving_average_of_parameters_and_buffers():
    student = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    teacher = copy.deepcopy(student)
    expected = {name: tensor.clone().double() for name, tensor in teacher.state_dict().items()}
    for step in range(5):
        with torch.no_grad():
            for tensor in student.state_dict().values():
                tensor.copy_(torch.rand(tensor.shape) * 9)
        ratio = min(1 - 1 / (step + 1), 0.6)
        for name, tensor in student.state_dict().items():
            whole = not tensor.is_floating_point()
            expected[name] = tensor.clone() if whole else expected[name] * ratio + tensor.double() * (1 - ratio)
        update_teacher(teacher, student, ema_ratio(step, 0.6))
    for name, tensor in teacher.state_dict().items():
        torch.testing.assert_close(tensor.double(), expected[name].double(), atol=1e-5, rtol=1e-5)
