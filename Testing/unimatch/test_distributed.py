"""Several real processes that train together on the CPU (gloo), as they would on several GPUs."""

import numpy as np
import pytest
import torch
from tiny import make_cohort, tiny_options

from SSLSegLib.errors import SSLSegError
from SSLSegLib.unimatch.data import StepBatches
from SSLSegLib.unimatch.folders import UniMatchFolder
from SSLSegLib.unimatch.model import load_model
from SSLSegLib.unimatch.run import train
from SSLSegLib.unimatch.slices import StackBuilder, cohort_pixel_mm
from SSLSegLib.unimatch.step import step_losses
from SSLSegLib.unimatch.train import Trainer

OPTIONS = {"steps": 4, "save_every": 1, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("cohort"))


@pytest.fixture(scope="module")
def together(cohort, tmp_path_factory):
    told = []
    folder = tmp_path_factory.mktemp("together")
    where = train(
        cohort,
        folder,
        tiny_options(**OPTIONS),
        device=["cpu", "cpu"],
        progress=lambda event, **fields: told.append((event, fields)),
    )
    return where, told


def teacher_of(where: UniMatchFolder) -> dict[str, torch.Tensor]:
    return load_model(where.model).network.state_dict()


def test_two_processes_end_with_one_model_and_one_voice(together):
    where, told = together
    assert (where.path / "processes" / "rank_1.log").exists()
    assert [fields["step"] for event, fields in told if event == "metric"] == [1, 2, 3, 4]
    assert teacher_of(where)


def test_gradients_are_the_mean_over_the_batches_of_all_processes(cohort, tmp_path, together):
    """Four steps written out in this process: both batches one after the other, gradients averaged."""
    options = tiny_options(**OPTIONS)
    cases = (*cohort.labelled, *cohort.unlabelled)
    builder = StackBuilder(cohort, tmp_path / "slices", cohort_pixel_mm(cohort, cases, options.size))
    stacks = builder.build(cohort.labelled), builder.build(cohort.unlabelled)
    batches = [StepBatches(*stacks, options, rank) for rank in range(2)]
    alone = Trainer(tmp_path / "alone", batches[0], 3, options)

    def mean_of_both(*_, **__):
        losses = [
            step_losses(alone.student, alone.teacher, batches[rank][alone.step], options, alone.step, rank=rank)
            for rank in range(2)
        ]
        both = sum(each.total for each in losses) / 2
        return type(losses[0])(**{**losses[0].__dict__, "total": both})

    import SSLSegLib.unimatch.train as module

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "step_losses", mean_of_both)
        for step in range(options.steps):
            alone.one_step(batches[0][step])
    expected, found = alone.teacher.state_dict(), teacher_of(together[0])
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=2e-3, atol=2e-5, msg=name)


def test_processes_that_are_stopped_between_go_on_as_if_never_stopped(cohort, tmp_path, together):
    options = tiny_options(**OPTIONS)

    class StopError(Exception):
        pass

    def stop(event, **fields):
        if event == "metric" and fields["step"] == 2:
            raise StopError

    with pytest.raises(StopError):
        train(cohort, tmp_path, options, device=["cpu", "cpu"], progress=stop)
    where = UniMatchFolder(tmp_path)
    assert not (where.model / "model.json").exists(), "stopped too late to test anything"
    train(cohort, tmp_path, options, device=["cpu", "cpu"])
    ours, theirs = teacher_of(where), teacher_of(together[0])
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_a_training_of_two_processes_is_not_taken_up_by_one(cohort, together):
    with pytest.raises(SSLSegError, match="processes"):
        train(cohort, together[0].path, tiny_options(**OPTIONS), device="cpu")


def test_what_one_process_fails_with_is_said_and_the_others_end(cohort, tmp_path):
    options = tiny_options(**OPTIONS, encoder_weights=str(tmp_path / "missing.pth"))
    with pytest.raises(SSLSegError, match=r"missing\.pth"):
        train(cohort, tmp_path / "run", options, device=["cpu", "cpu"])


def test_processes_draw_different_batches(cohort, tmp_path):
    options = tiny_options()
    builder = StackBuilder(cohort, tmp_path / "slices", 1.25)
    stacks = builder.build(cohort.labelled), builder.build(cohort.unlabelled)
    first, second = (StepBatches(*stacks, options, rank)[0] for rank in range(2))
    assert not np.array_equal(first.weak.numpy(), second.weak.numpy())
