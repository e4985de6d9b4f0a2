import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import make_cohort, tiny_options, truth_of

from SSLSegLib.errors import JobError, WeightsError
from SSLSegLib.unimatch.data import StepBatches
from SSLSegLib.unimatch.guides import StoredGuide
from SSLSegLib.unimatch.slices import StackBuilder
from SSLSegLib.unimatch.train import Trainer


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("cohort"))


def trainer(cohort, folder: Path, **changes) -> Trainer:
    workers = changes.pop("workers", 0)
    progress = changes.pop("progress", lambda event, **fields: None)
    options = tiny_options(guide="tffs", **changes)
    slices = folder.parent / "slices"
    builder = StackBuilder(cohort, slices, 1.25, lambda case, geometry: truth_of(cohort, case))
    labelled, unlabelled = builder.build(cohort.labelled), builder.build(cohort.unlabelled)
    batches = StepBatches(labelled, unlabelled, options)
    return Trainer(folder, batches, 3, options, StoredGuide(), progress=progress, workers=workers)


def everything(run: Trainer) -> dict[str, torch.Tensor]:
    tensors = {f"student.{name}": tensor for name, tensor in run.student.state_dict().items()}
    tensors |= {f"teacher.{name}": tensor for name, tensor in run.teacher.state_dict().items()}
    for number, state in run.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{number}.{name}": torch.as_tensor(value) for name, value in state.items()}
    return tensors


def assert_equal(one: Trainer, other: Trainer) -> None:
    ours, theirs = everything(one), everything(other)
    assert ours.keys() == theirs.keys()
    different = [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])]
    assert different == []


def test_a_resumed_training_equals_an_uninterrupted_one_number_for_number(cohort, tmp_path):
    whole = trainer(cohort, tmp_path / "whole")
    whole.run()
    trainer(cohort, tmp_path / "parts").run(until=3)
    second = trainer(cohort, tmp_path / "parts")
    assert second.step == 3
    torch.manual_seed(99)  # what the process drew meanwhile is of no account
    second.run()
    assert whole.step == second.step == 6
    assert_equal(whole, second)


def test_worker_processes_change_nothing(cohort, tmp_path):
    alone, helped = trainer(cohort, tmp_path / "alone"), trainer(cohort, tmp_path / "helped", workers=1)
    alone.run(until=2)
    helped.run(until=2)
    assert_equal(alone, helped)


def test_the_first_step_copies_the_student_and_later_ones_move_the_teacher_slowly(cohort, tmp_path):
    run = trainer(cohort, tmp_path / "run", ema=0.6)
    run.one_step(run.batches[0])
    for ours, theirs in zip(run.teacher.parameters(), run.student.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    before = [each.clone() for each in run.teacher.parameters()]
    run.one_step(run.batches[1])
    for old, ours, theirs in zip(before, run.teacher.parameters(), run.student.parameters(), strict=True):
        torch.testing.assert_close(ours, 0.5 * old + 0.5 * theirs.detach())


def test_learning_rates_fall_from_their_values_and_the_decoder_learns_faster(cohort, tmp_path):
    run = trainer(cohort, tmp_path / "run", learning_rate=1e-3, decoder_factor=40.0)
    rates = []
    for step in range(6):
        run.one_step(run.batches[step])
        rates.append([group["lr"] for group in run.optimizer.param_groups])
    assert rates[0] == pytest.approx([1e-3, 4e-2])
    assert rates[3] == pytest.approx([1e-3 * 0.5**0.9, 4e-2 * 0.5**0.9])


def test_a_frozen_encoder_stays_as_it_is(cohort, tmp_path):
    run = trainer(cohort, tmp_path / "run", freeze_encoder=True)
    before = {name: tensor.clone() for name, tensor in run.student.state_dict().items()}
    run.one_step(run.batches[0])
    changed = {
        name.split(".")[0] for name, tensor in run.student.state_dict().items() if not tensor.equal(before[name])
    }
    assert changed == {"decoder"}


def test_training_lowers_the_supervised_loss(cohort, tmp_path):
    told = []
    hear = lambda event, **fields: told.append(fields) if event == "metric" else None  # noqa: E731
    run = trainer(cohort, tmp_path / "run", steps=24, learning_rate=3e-3, progress=hear)
    run.run()
    first, last = told[:4], told[-4:]
    assert sum(t["supervised"] for t in last) < 0.85 * sum(t["supervised"] for t in first)
    json.dumps(told)
    assert {"step", "steps", "loss", "confident", "guide_weight", "guide_agreement"} <= told[0].keys()


def test_a_folder_of_another_training_is_refused(cohort, tmp_path):
    trainer(cohort, tmp_path / "run").run(until=1)
    with pytest.raises(JobError, match="other options"):
        trainer(cohort, tmp_path / "run", threshold=0.5)
    trainer(cohort, tmp_path / "run", save_every=5)  # how often is saved is no part of what is trained


def test_the_encoders_weights_are_needed_at_the_start_only_and_must_stay_the_same(cohort, tmp_path):
    from tiny import NETWORK

    from SSLSegLib.unimatch.network import SegmentationNetwork

    path, missing = tmp_path / "encoder.safetensors", tmp_path / "missing.pth"

    def write_encoder(shift: float) -> torch.Tensor:
        from safetensors.torch import save_file

        state = SegmentationNetwork(NETWORK, 3).encoder.state_dict()
        save_file({name: tensor + shift for name, tensor in state.items()}, path)
        return state["layernorm.weight"] + shift

    with pytest.raises(WeightsError):
        trainer(cohort, tmp_path / "run", encoder_weights=str(missing))
    expected = write_encoder(0.5)
    run = trainer(cohort, tmp_path / "run", encoder_weights=str(path))
    assert torch.equal(run.student.encoder.layernorm.weight, expected)
    assert torch.equal(run.teacher.encoder.layernorm.weight, expected)
    run.run(until=1)
    path.unlink()
    assert trainer(cohort, tmp_path / "run", encoder_weights=str(path)).step == 1
    write_encoder(0.25)
    with pytest.raises(JobError, match="weights to start from"):
        trainer(cohort, tmp_path / "run", encoder_weights=str(path))


def test_a_damaged_state_is_said_to_be_damaged(cohort, tmp_path):
    run = trainer(cohort, tmp_path / "run")
    run.run(until=1)
    state = tmp_path / "run" / "state.pt"
    state.write_bytes(state.read_bytes()[:500])
    with pytest.raises(JobError, match="cannot be read"):
        trainer(cohort, tmp_path / "run")


def test_a_loss_that_is_no_number_ends_the_training_with_a_word(cohort, tmp_path):
    run = trainer(cohort, tmp_path / "run")
    with torch.no_grad():
        run.student.decoder.classify.bias.fill_(torch.nan)
    with pytest.raises(JobError, match="no longer a number"):
        run.run()
    assert not (tmp_path / "run" / "state.pt").exists()


def test_a_training_killed_in_a_step_goes_on_from_its_last_state(cohort, tmp_path):
    """A real process that is killed without warning, and another that ends what it began."""
    program = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_train import trainer
from SSLSegLib.cases.cohort import Cohort
run = trainer(Cohort.load({str(cohort.folder)!r}), Path({str(tmp_path / "parts")!r}))
plain = run.one_step
run.one_step = lambda batch: os.kill(os.getpid(), 9) if run.step == 5 else plain(batch)
run.run()
"""
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert ended.returncode == -9, ended.stderr
    whole, second = trainer(cohort, tmp_path / "whole"), trainer(cohort, tmp_path / "parts")
    assert second.step == 4
    whole.run()
    second.run()
    assert_equal(whole, second)
