"""Checkpoints, draws by name and validation, with nnU-Net's own as the measure."""

import json
import shutil
from pathlib import Path

import pytest
import SimpleITK
import torch

from SSLSegLib.selftraining.folders import DATASET, PLANS, WorkFolder

from .conftest import TINY_SCHEDULE


@pytest.fixture
def trainer_of(finished, monkeypatch, tmp_path):
    """Make a trainer of fold 0 of round 1 that writes to its own folder."""
    from SSLSegLib.selftraining.trainer import FoldTrainer

    source = WorkFolder(finished.work).round(1)
    dataset = source.preprocessed / DATASET
    monkeypatch.setenv("nnUNet_preprocessed", str(source.preprocessed))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")

    def make(name: str, **schedule: object) -> FoldTrainer:
        monkeypatch.setenv("nnUNet_results", str(tmp_path / name))
        made = FoldTrainer.create(
            json.loads((dataset / f"{PLANS}.json").read_text()),
            "2d",
            0,
            json.loads((dataset / "dataset.json").read_text()),
            torch.device("cpu"),
            schedule=TINY_SCHEDULE.model_copy(update={"epochs": 3, **schedule}),
            seed_names=(42, "test", 0),
            on_epoch=made_epochs.append,
        )
        return made

    made_epochs: list[dict] = []
    make.epochs = made_epochs
    torch.set_num_threads(1)
    return make


class Killed(BaseException):
    pass


def test_a_resumed_training_equals_an_uninterrupted_one_number_for_number(trainer_of):
    whole = trainer_of("whole", augmentation="nnunet")
    whole.train()
    first = trainer_of("cut", augmentation="nnunet")

    def die(numbers: dict) -> None:
        if numbers["epoch"] == 2:
            raise Killed

    first.on_epoch = die
    with pytest.raises(Killed):
        first.train()
    assert (Path(first.output_folder) / "checkpoint_latest.pth").is_file()
    second = trainer_of("cut", augmentation="nnunet")
    trainer_of.epochs.clear()
    second.train()
    assert [numbers["epoch"] for numbers in trainer_of.epochs] == [3]
    for name, weights in whole.network.state_dict().items():
        assert torch.equal(weights, second.network.state_dict()[name]), name


def test_the_same_names_draw_the_same_network_and_others_another(trainer_of):
    one, other = trainer_of("one"), trainer_of("other")
    first = next(one.network.parameters())
    assert torch.equal(first, next(other.network.parameters()))
    other.seed_names = (42, "test", 1)
    other._draw("network")
    elsewhere = torch.rand(3)
    one._draw("network")
    assert not torch.equal(elsewhere, torch.rand(3))


def test_checkpoints_are_read_without_running_code_and_say_the_stock_trainers_name(finished):
    from SSLSegLib.selftraining.trainer import load_checkpoint

    path = WorkFolder(finished.work).round(2).fold("2d", 0) / "checkpoint_final.pth"
    checkpoint = load_checkpoint(path)
    assert checkpoint["trainer_name"] == "nnUNetTrainer"
    assert checkpoint["init_args"]["configuration"] == "2d"
    assert not list(path.parent.glob("checkpoint_best.pth"))
    assert not list(path.parent.glob("checkpoint_latest.pth"))


def test_a_later_round_starts_from_the_same_fold_of_the_round_before(finished):
    work = WorkFolder(finished.work)
    told = json.loads((work.round(2).path / "fold_1.json").read_text())
    assert Path(told["warm_start"]) == work.round(1).fold("2d", 1) / "checkpoint_final.pth"
    assert json.loads((work.round(1).path / "fold_1.json").read_text())["warm_start"] is None


@pytest.mark.parametrize("augmentation", ["nnunet", "light"])
def test_validation_predictions_equal_nnunets_own(trainer_of, augmentation, monkeypatch):
    from SSLSegLib.progress import silent
    from SSLSegLib.selftraining.validation import predict_validation_cases

    if augmentation == "nnunet":
        monkeypatch.setattr("nnunetv2.training.nnUNetTrainer.nnUNetTrainer.default_num_processes", 1)
    trainer = trainer_of("validation", augmentation=augmentation, epochs=1)
    trainer.train()
    cases = predict_validation_cases(trainer, silent)
    folder = Path(trainer.output_folder) / "validation"
    ours = {case: SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / f"{case}.nii.gz"))) for case in cases}
    assert ours
    assert trainer.inference_allowed_mirroring_axes == ((0, 1) if augmentation == "nnunet" else None)
    if augmentation == "nnunet":
        shutil.rmtree(folder)
        trainer.perform_actual_validation()
        for case, labels in ours.items():
            stock_labels = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / f"{case}.nii.gz")))
            assert (labels == stock_labels).all()
