"""Stage 1 on generated discs and squares, with a real tiny VESSA."""

import json

import numpy as np
import pytest
import torch
from tiny_vessa import tiny_vessa

from SSLSegLib.errors import JobError, WeightsError
from SSLSegLib.vessa.features import Sam2Features
from SSLSegLib.vessa.model import VessaOutput
from SSLSegLib.vessa.options import TrainingOptions
from SSLSegLib.vessa.pairs import prepare_data
from SSLSegLib.vessa.saving import load_vessa, save_vessa, without_language
from SSLSegLib.vessa.slices import LabelledSlice, StoredSlices
from SSLSegLib.vessa.templates import TemplateBank
from SSLSegLib.vessa.train import CURVE, StageOne, dice_scores, warmup_cosine


def shapes(subjects=8, side=48):
    """Each slice holds a bright disc and a dark square on grey."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((side, side))
    entries, pictures, masks = [], [], []
    for subject in range(subjects):
        r, c = rng.uniform(12, 36, 2)
        disc = (rows - r) ** 2 + (columns - c) ** 2 < 64
        top, left = (int(r + side / 2) % side, int(c + side / 2) % side)
        square = np.zeros_like(disc)
        square[max(0, top - 5) : top + 5, max(0, left - 5) : left + 5] = True
        grey = (100 + 100 * disc - 80 * (square & ~disc) + rng.normal(0, 5, disc.shape)).clip(0, 255).astype(np.uint8)
        entries.append(LabelledSlice(f"s{subject}", "shapes", f"p{subject}", "MR", 0.5, ("disc", "square")))
        pictures.append(np.repeat(grey[..., None], 3, axis=2))
        masks.append({"disc": disc, "square": square & ~disc})
    return StoredSlices(entries, pictures, masks)


def options(**changes):
    settings = {
        "steps": 4,
        "batch": 2,
        "accumulate": 2,
        "learning_rate": 1e-3,
        "sam2_factor": 1.0,
        "bank_part": 0.3,
        "validation_part": 0.2,
        "validation_pairs": 2,
        "validate_every": 4,
        "save_every": 1,
        "precision": "float32",
        **changes,
    }
    return TrainingOptions(**settings)


def stage_one(folder, vessa=None, **changes):
    vessa = vessa or tiny_vessa()
    chosen = options(**changes)
    data = prepare_data(shapes(), Sam2Features(vessa.segmenter.sam2, "tiny"), chosen)
    return StageOne(folder, vessa, data, chosen, cpu=True)


def parameters(trainer):
    return {name: each.detach().clone() for name, each in trainer.plain.named_parameters() if each.requires_grad}


def test_bank_training_and_validation_share_no_subject():
    data = prepare_data(shapes(), Sam2Features(tiny_vessa(language=False).segmenter.sam2, "tiny"), options())
    entries = data.slices.entries
    parts = [{entries[i].subject for i in part} for part in (data.training, data.validation)]
    parts.append({each.subject for each in data.bank.templates})
    assert sum(len(part) for part in parts) == len(set.union(*parts)) == 8


def test_a_large_bank_is_thinned_out():
    features = Sam2Features(tiny_vessa(language=False).segmenter.sam2, "tiny")
    assert len(prepare_data(shapes(), features, options()).bank) == 2
    assert len(prepare_data(shapes(), features, options(bank_slices=1)).bank) == 1


def test_the_loss_falls(tmp_path):
    trainer = stage_one(
        tmp_path, steps=12, accumulate=1, batch=4, validate_every=12, learning_rate=1e-2, sam2_factor=0.3
    )
    trainer.run()
    curve = [json.loads(line) for line in (tmp_path / CURVE).read_text().splitlines()]
    for part in ("text", "bce", "loss"):
        assert np.mean([each[part] for each in curve[-3:]]) < 0.95 * np.mean([each[part] for each in curve[:3]]), part
    assert 0 <= curve[-1]["validation_dice"] <= 1


def test_a_training_that_was_interrupted_goes_on_as_if_it_never_was(tmp_path):
    whole = stage_one(tmp_path / "whole")
    whole.run()
    stage_one(tmp_path / "parts").run(until=2)
    resumed = stage_one(tmp_path / "parts")
    assert resumed.step == 2
    resumed.run()
    expected = parameters(whole)
    for name, parameter in parameters(resumed).items():
        torch.testing.assert_close(parameter, expected[name], atol=1e-6, rtol=1e-5)


def test_accumulated_batches_make_one_update_of_their_mean(tmp_path):
    one, two = stage_one(tmp_path / "one", batch=4, accumulate=1), stage_one(tmp_path / "two", batch=2, accumulate=2)
    drawn = one.data.pairs(one.options)[0]

    class Given:
        def __init__(self, parts):
            self.parts = parts

        def __getitem__(self, number):
            return self.parts[number]

    # The same four pairs with the same texts: whole, and in two halves.
    drawn = [type(each)(**{**each.__dict__, "answer": "<SEG>.", "instruction": "Segment."}) for each in drawn]
    before = parameters(one)
    one.one_update(Given([drawn]))
    two.one_update(Given([drawn[:2], drawn[2:]]))
    expected, found = parameters(one), parameters(two)
    step = sum((expected[name] - each).square().sum() for name, each in before.items()).sqrt()
    apart = sum((expected[name] - each).square().sum() for name, each in found.items()).sqrt()
    assert step > 0
    assert apart < 0.2 * step  # Adam turns rounding of gradients near 0 into steps; with a half lost it is about 1


def test_a_folder_of_another_training_is_refused(tmp_path):
    stage_one(tmp_path).run(until=1)
    with pytest.raises(JobError, match="other options"):
        stage_one(tmp_path, learning_rate=5e-4)


def test_a_training_is_not_taken_up_beside_another_sam2(tmp_path):
    vessa = tiny_vessa()
    features = Sam2Features(vessa.segmenter.sam2, "from elsewhere")  # as with a DINOv2: the bank does not tell
    data = prepare_data(shapes(), features, options())
    StageOne(tmp_path, vessa, data, options(), cpu=True).run(until=1)
    StageOne(tmp_path, tiny_vessa(), data, options(), cpu=True)
    with pytest.raises(JobError, match="model"):
        StageOne(tmp_path, tiny_vessa(seed=1), data, options(), cpu=True)


def test_sam2_learns_more_slowly_than_the_language_model(tmp_path):
    trainer = stage_one(tmp_path, sam2_factor=0.25)
    trainer.one_update(trainer.data.pairs(trainer.options))
    sam2, language = trainer.optimizer.param_groups
    assert sam2["lr"] == pytest.approx(0.25 * language["lr"])
    assert {id(each) for each in sam2["params"]} <= {id(each) for each in trainer.plain.segmenter.parameters()}
    assert {id(each) for each in language["params"]} <= {id(each) for each in trainer.plain.language.parameters()}


def test_gradients_are_clipped(tmp_path):
    """Far below Adam's epsilon nothing moves."""
    for clip, moves in ((1.0, True), (1e-14, False)):
        trainer = stage_one(tmp_path / str(clip), clip=clip, weight_decay=0.0, warmup=0.0)
        before = parameters(trainer)
        trainer.one_update(trainer.data.pairs(trainer.options))
        after = parameters(trainer)
        assert any((after[name] - before[name]).abs().max() > 1e-6 for name in before) == moves


def test_a_resumed_training_knows_the_best_so_far(tmp_path):
    trainer = stage_one(tmp_path)
    trainer.best = 0.75
    trainer.save()
    assert stage_one(tmp_path).best == 0.75


def test_a_damaged_state_is_named(tmp_path):
    stage_one(tmp_path).run(until=1)
    (tmp_path / "state.pt").write_bytes(b"broken")
    with pytest.raises(JobError, match="cannot be read"):
        stage_one(tmp_path)


def test_the_best_model_is_kept_with_its_bank_and_segments_as_it_did(tmp_path):
    trainer = stage_one(tmp_path, steps=2)
    best = trainer.run()
    loaded = load_vessa(tmp_path / "model", "cpu")
    bank = TemplateBank.load(tmp_path / "bank")
    assert bank.fingerprint() == trainer.data.bank.fingerprint()
    again = StageOne(tmp_path / "again", loaded.model, trainer.data, trainer.options, cpu=True)
    assert again.validate() == pytest.approx(best)


def test_the_rate_rises_and_falls():
    rates = [warmup_cosine(step, 100, 0.1) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[10] == 1
    assert rates[55] == pytest.approx(0.5)
    assert rates[100] == pytest.approx(0, abs=1e-12)


def test_validation_counts_a_rightly_empty_mask_as_whole():
    logits = torch.full((3, 1, 4, 4), -1.0)
    logits[1:, :, :2] = 1.0
    masks = torch.zeros(3, 1, 4, 4)
    masks[1, :, :2] = 1
    masks[2, :, 1:3] = 1
    assert dice_scores(VessaOutput(logits, torch.ones(3, 1)), masks) == [1.0, 1.0, 0.5]
    assert dice_scores(VessaOutput(logits, -torch.ones(3, 1)), masks) == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("language", [True, False])
def test_a_saved_vessa_answers_as_before(tmp_path, language):
    vessa = tiny_vessa(language=language)
    from tiny_vessa import blobs, pictures

    pairs = vessa.pairs(pictures(1), pictures(1, seed=5), blobs(1), ["Segment."], ["<SEG>."])
    if language:
        with torch.no_grad():
            for name, parameter in vessa.language.named_parameters():
                if parameter.requires_grad:
                    draw = torch.Generator().manual_seed(len(name))
                    parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    save_vessa(tmp_path, vessa)
    loaded = load_vessa(tmp_path, "cpu")
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(pairs).logits, vessa(pairs).logits, atol=1e-5, rtol=1e-4)


def test_a_vessa_can_be_loaded_without_its_language_model(tmp_path):
    save_vessa(tmp_path, tiny_vessa())
    assert load_vessa(tmp_path, "cpu", language=False).model.language is None


def test_sam2_weights_alone_make_the_mode_without_vlm(tmp_path):
    save_vessa(tmp_path, tiny_vessa())
    loaded = without_language(tmp_path / "sam2.safetensors", "cpu")
    assert loaded.model.language is None
    assert not loaded.model.segmenter.single_mask


@pytest.mark.parametrize("file", ["sam2.safetensors", "language.safetensors"])
def test_a_changed_file_of_weights_is_refused(tmp_path, file):
    save_vessa(tmp_path, tiny_vessa())
    content = bytearray((tmp_path / file).read_bytes())
    content[-1] ^= 1
    (tmp_path / file).write_bytes(bytes(content))
    with pytest.raises(WeightsError):
        load_vessa(tmp_path, "cpu")


def test_a_folder_without_vessa_names_the_way_out(tmp_path):
    with pytest.raises(WeightsError, match="vessa segment --sam2"):
        load_vessa(tmp_path)
