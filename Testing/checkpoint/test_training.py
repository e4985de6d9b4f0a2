"""Training learns, stops and goes on, refuses another seed, and ends in weights that load."""

import dataclasses
import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from SSLSegLib.checkpoint.configuration import small_configuration
from SSLSegLib.checkpoint.export import export_checkpoint
from SSLSegLib.checkpoint.losses import correspondence_loss
from SSLSegLib.checkpoint.samples import Batch
from SSLSegLib.checkpoint.training import Trainer, TrainingOptions
from SSLSegLib.errors import JobError, WeightsError
from SSLSegLib.files import sha256_of
from SSLSegLib.weights.loading import load_sam2
from SSLSegLib.weights.sam2_model import build_sam2

TINY = TrainingOptions(seed=3, image_size=64, small_until=0.0, batch=1, steps=2, workers=0, validation=1, warmup=1)


def _disc_batch(seed: int) -> Batch:
    """A bright disc, one of two, is asked for: easy enough to learn in a few steps."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    masks = torch.stack([(rows - 20 - k) ** 2 + (columns - 24) ** 2 < 144 for k in range(6)])
    frames = masks[:, None].float() * 2 - 1 + 0.1 * torch.randn(6, 3, 64, 64, generator=generator)
    structures = masks[:, 2::4, 2::4].to(torch.uint8) + 1
    place = torch.zeros(1, 1, 4, 16, 16)  # says nothing: the disc is to be seen
    return Batch(frames[None], masks[None, None], torch.tensor([[2.0, 1.0]]), structures[None], place, labelled=2)


def test_equal_structures_that_look_alike_cost_nothing_and_exchanged_ones_much():
    look = torch.eye(8)
    structures = torch.randint(1, 4, (1, 5, 4, 4), generator=torch.Generator().manual_seed(0))
    features = look[structures].permute(0, 1, 4, 2, 3)
    fine = structures.repeat_interleave(4, -1).repeat_interleave(4, -2).to(torch.uint8)
    exchanged = fine.clone()
    exchanged[:, :3] = fine[:, :3] % 3 + 1
    alike = correspondence_loss(features, fine, 3)
    assert alike < 0.05
    assert correspondence_loss(features, exchanged, 3) > 5 * alike + 1


def test_structures_that_only_one_subject_has_are_not_looked_for():
    features = torch.randn(1, 2, 8, 4, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    structures = torch.ones(1, 2, 16, 16, dtype=torch.uint8)
    structures[:, 1] = 2
    assert correspondence_loss(features, structures, 1) == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    trainer = Trainer(folder, TINY)
    trainer.run()
    return folder, trainer


def test_the_model_is_small_and_its_widths_fit():
    model = build_sam2(small_configuration())
    assert sum(p.numel() for p in model.parameters()) < 7e6
    assert model.image_size == 128
    with pytest.raises(WeightsError):
        build_sam2(small_configuration(image_size=64).model_copy(update={"base": "no_such_base"}))


def test_the_same_weights_fit_every_image_size():
    state = build_sam2(small_configuration(image_size=64)).state_dict()
    build_sam2(small_configuration(image_size=192)).load_state_dict(state)


def test_a_few_steps_on_an_easy_target_lower_the_loss(tmp_path):
    options = dataclasses.replace(TINY, steps=1000, rate=2e-3, chains_from=0.0, chains=0.5)
    trainer = Trainer(tmp_path, options)
    losses = []
    for step in range(16):
        torch.manual_seed(step)
        losses.append(trainer._train(_disc_batch(step))["loss"])
        trainer.step += 1
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])


def test_a_training_ends_with_curves_and_validation(trained):
    folder, trainer = trained
    assert trainer.step == 2
    header, *rows = (folder / "validation.csv").read_text().splitlines()
    assert header.split(",") == ["step", "seconds", "dice", "median", "volume", "presence"]
    assert len(rows) == 1
    assert json.loads((folder / "options.json").read_text())["seed"] == 3


def test_a_training_goes_on_where_it_stood(trained):
    folder, trainer = trained
    resumed = Trainer(folder, dataclasses.replace(TINY, steps=3))
    assert resumed.step == 2
    assert resumed.elapsed == pytest.approx(trainer.elapsed)
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value)
    assert resumed.optimiser.state_dict()["state"]


def test_frames_grow_when_it_is_time_and_the_weights_stay(tmp_path):
    trainer = Trainer(tmp_path, dataclasses.replace(TINY, image_size=96, small_size=64, small_until=0.5, steps=4))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.step = 1
    assert not trainer._grow()
    assert trainer.model.image_size == 64
    trainer.step = 2
    assert trainer._grow()
    assert trainer.model.image_size == 96
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.state_dict().items())


def test_a_training_starts_from_exported_weights_or_from_another_trainings_state(trained, tmp_path):
    folder, trainer = trained
    for number, start in enumerate((export_checkpoint(folder), folder / "state.pt")):
        begun = Trainer(tmp_path / str(number), dataclasses.replace(TINY, seed=4), start_from=start)
        assert begun.step == 0
        begun.save()
        resumed = Trainer(tmp_path / str(number), dataclasses.replace(TINY, seed=4))
        assert resumed.started_from == sha256_of(start)
        assert json.loads((tmp_path / str(number) / "options.json").read_text())["started_from"] == sha256_of(start)
        for name, value in begun.model.state_dict().items():
            assert torch.allclose(value, trainer.average[name], atol=2e-3), name
    wider = build_sam2(small_configuration(image_size=64, trunk=48))
    save_file(wider.state_dict(), tmp_path / "wider.safetensors")
    with pytest.raises(JobError, match="another network"):
        Trainer(tmp_path / "3", TINY, start_from=tmp_path / "wider.safetensors")


def test_a_folder_of_another_seed_is_refused(trained):
    with pytest.raises(JobError, match="seed 3"):
        Trainer(trained[0], dataclasses.replace(TINY, seed=4))


def test_a_damaged_state_is_refused(trained, tmp_path):
    (tmp_path / "state.pt").write_bytes((trained[0] / "state.pt").read_bytes()[:1000])
    with pytest.raises(JobError, match="cannot be read"):
        Trainer(tmp_path, TINY)


def test_the_mean_of_two_trainings_is_exported_and_says_of_what(trained, tmp_path):
    folder, trainer = trained
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    state = torch.load(other / "state.pt", weights_only=True)
    state["average"] = {k: v + 1 if v.is_floating_point() else v for k, v in state["average"].items()}
    torch.save(state, other / "state.pt")
    path = export_checkpoint(other, mean_with=[folder])
    loaded = load_sam2(path)
    for name, value in loaded.model.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(value, trainer.average[name] + 0.5, atol=2e-3), name
    said = json.loads(path.with_suffix(".json").read_text())["training"]
    assert [each["seed"] for each in said["mean_with"]] == [TINY.seed]

    state["average"] = {k: v[..., :1] for k, v in state["average"].items() if v.dim()}
    torch.save(state, other / "state.pt")
    with pytest.raises(JobError, match="different shapes"):
        export_checkpoint(folder, mean_with=[other])


def test_exported_weights_load_and_are_the_averaged_ones(trained):
    folder, trainer = trained
    loaded = load_sam2(export_checkpoint(folder))
    assert loaded.image_size == 64
    assert not loaded.model.training
    for name, value in loaded.model.state_dict().items():
        assert torch.allclose(value, trainer.average[name], atol=2e-3), name
    with pytest.raises(JobError, match="holds no training"):
        export_checkpoint(folder / "nowhere")
