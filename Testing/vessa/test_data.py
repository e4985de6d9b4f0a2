import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from SSLSegLib.errors import CaseError, CohortError
from SSLSegLib.vessa.data import EXCLUDED, PAPER_DATASETS, BiomedParseSlices, find_datasets
from SSLSegLib.vessa.pairs import Joined, TrainingPairs, split_bank
from SSLSegLib.vessa.slices import LabelledSlice, StoredSlices
from SSLSegLib.vessa.templates import TemplateBank


class Mean:
    """Features: grey level and its square."""

    name = "mean"

    def __call__(self, pictures):
        values = np.array([[each.mean() / 255, 1.0] for each in pictures], np.float32)
        return values / np.linalg.norm(values, axis=1, keepdims=True)


def biomedparse(folder: Path, *, subjects: int = 4) -> Path:
    """A dataset as BiomedParse's own preparation writes it."""
    for subject in range(subjects):
        for number in range(2):
            name = f"amos_{subject:04d}_{number}_MRI_abdomen"
            for split in ("train",):
                image = np.full((32, 32, 3), (20 * subject + number) % 256, np.uint8)
                (folder / split).mkdir(parents=True, exist_ok=True)
                (folder / f"{split}_mask").mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(folder / split / f"{name}.png")
                mask = np.zeros((32, 32), np.uint8)
                mask[4 : 10 + number] = 255
                Image.fromarray(mask).save(folder / f"{split}_mask" / f"{name}_liver.png")
                if number:
                    Image.fromarray(mask.T.copy()).save(folder / f"{split}_mask" / f"{name}_right+kidney.png")
    return folder


def test_a_biomedparse_folder_is_read_by_its_names(tmp_path):
    data = BiomedParseSlices(biomedparse(tmp_path / "amos22"))
    assert len(data.entries) == 8
    first, second = data.entries[:2]
    assert (first.dataset, first.modality, first.subject, first.targets) == ("amos22", "MRI", "amos_0000", ("liver",))
    assert second.targets == ("liver", "right kidney")
    assert data.mask(1, "right kidney")[:, 4:11].all()
    assert data.mask(1, "right kidney").sum() == 7 * 32
    assert not data.mask(0, "right kidney").any()
    assert data.picture(3).shape == (32, 32, 3)


def test_test_tasks_of_the_paper_are_left_out_by_default(tmp_path):
    for name in ("amos22", "ACDC", "AbdomenCT-1K", "acdc_ed"):
        biomedparse(tmp_path / name, subjects=1)
    assert [path.name for path in find_datasets(tmp_path)] == ["amos22"]
    assert [path.name for path in find_datasets(tmp_path, exclude=())] == sorted(
        ["amos22", "ACDC", "AbdomenCT-1K", "acdc_ed"]
    )
    assert [path.name for path in find_datasets(tmp_path, exclude=(), only=["acdc"])] == ["ACDC"]


def test_where_only_excluded_datasets_lie_it_says_so(tmp_path):
    biomedparse(tmp_path / "ACDC", subjects=1)
    with pytest.raises(CohortError, match="ACDC left out"):
        find_datasets(tmp_path)


def test_no_dataset_of_the_paper_is_among_the_excluded():
    assert len(PAPER_DATASETS) == 6
    assert not {each.folder.casefold() for each in PAPER_DATASETS} & {name.casefold() for name in EXCLUDED}


def test_a_damaged_image_is_named(tmp_path):
    data = BiomedParseSlices(biomedparse(tmp_path / "amos22"))
    (tmp_path / "amos22" / "train" / "amos_0000_0_MRI_abdomen.png").write_bytes(b"no picture")
    with pytest.raises(CaseError, match="amos_0000_0"):
        data.picture(0)


def test_a_folder_of_another_form_is_refused(tmp_path):
    with pytest.raises(CohortError, match="train_mask"):
        BiomedParseSlices(tmp_path)


def test_the_bank_takes_five_percent_of_each_datasets_subjects_and_no_subject_is_on_both_sides(tmp_path):
    data = Joined(
        [BiomedParseSlices(biomedparse(tmp_path / "a", subjects=40)), BiomedParseSlices(biomedparse(tmp_path / "b"))]
    )
    bank, rest = split_bank(data, 0.05, seed=1)
    assert sorted([*bank, *rest]) == list(range(len(data.entries)))
    subjects = [{(data.entries[i].dataset, data.entries[i].subject) for i in part} for part in (bank, rest)]
    assert not subjects[0] & subjects[1]
    assert sum(dataset == "a" for dataset, _ in subjects[0]) == 2
    assert sum(dataset == "b" for dataset, _ in subjects[0]) == 1
    assert split_bank(data, 0.05, seed=1) == (bank, rest)
    assert split_bank(data, 0.05, seed=2) != (bank, rest)


def test_a_dataset_with_one_subject_cannot_be_split(tmp_path):
    with pytest.raises(CohortError, match="1 labelled subjects"):
        split_bank(BiomedParseSlices(biomedparse(tmp_path / "a", subjects=1)))


def stored(count=20):
    """Even slices hold "a", every fourth also "b"; subjects of two slices each."""
    entries, pictures, masks = [], [], []
    for i in range(count):
        held = (["a"] if i % 2 == 0 else []) + (["b"] if i % 4 == 0 else [])
        entries.append(LabelledSlice(f"s{i}", "d", f"p{i // 2}", "MR", 0.5, tuple(held)))
        pictures.append(np.full((16, 16, 3), 10 * i, np.uint8))
        masks.append({name: np.pad(np.ones((4 + n, 4), bool), 5)[:16, :14] for n, name in enumerate(held)})
        masks[-1] = {name: np.pad(mask, ((0, 16 - mask.shape[0]), (0, 2))) for name, mask in masks[-1].items()}
    return StoredSlices(entries, pictures, masks)


def pairs(**changes):
    slices = stored()
    bank = TemplateBank.of(slices, Mean(), range(8))
    settings = {"batch": 4, "steps": 200, "seed": 3, "empty": 0.25, **changes}
    return TrainingPairs(slices, range(8, 20), bank, Mean(), **settings)


def test_pairs_depend_on_the_step_alone():
    one, other = pairs(), pairs()
    other[7]
    for ours, theirs in zip(one[5], other[5], strict=True):
        np.testing.assert_array_equal(ours.target, theirs.target)
        np.testing.assert_array_equal(ours.template_mask, theirs.template_mask)
        assert (ours.instruction, ours.answer) == (theirs.instruction, theirs.answer)
    assert any((a.target != b.target).any() for a, b in zip(one[5], one[6], strict=True))
    apart = pairs(rank=1)
    assert any((a.target != b.target).any() for a, b in zip(one[5], apart[5], strict=True))


def test_the_language_model_is_told_the_name_of_what_it_is_asked_for_only_on_request(monkeypatch):
    monkeypatch.setattr(StoredSlices, "phrase", lambda self, index, target: f"organ {target} of {index}")
    drawn = [pair for step in range(10) for pair in pairs(named=True, empty=0.0)[step]]
    said = {re.search(r"The structure is: organ (\w) of (\d+)\.", pair.instruction).groups() for pair in drawn}
    held = stored().entries
    assert all(name in held[int(index)].targets for name, index in said)
    assert {name for name, _ in said} == {"a", "b"}
    assert not any("structure is:" in pair.instruction for pair in pairs()[0])


def test_templates_always_show_the_structure_and_some_targets_lack_it():
    drawn = [pair for step in range(100) for pair in pairs()[step]]
    assert all(pair.template_mask.any() for pair in drawn)
    lacking = np.mean([not pair.target_mask.any() for pair in drawn])
    assert 0.17 < lacking < 0.33


def test_a_subject_never_sees_its_own_template():
    slices = stored()
    bank = TemplateBank.of(slices, Mean(), [8, 12])
    drawn = TrainingPairs(slices, [8, 9, 12, 13], bank, Mean(), batch=1, steps=50, seed=0, temperature=1e-6)
    for step in range(50):
        (pair,) = drawn[step]
        assert pair.template[0, 0, 0] // 20 != pair.target[0, 0, 0] // 20


def test_where_only_its_own_templates_are_left_training_refuses():
    slices = stored()
    drawn = TrainingPairs(slices, [8, 9], TemplateBank.of(slices, Mean(), [8]), Mean(), batch=1, steps=1, seed=0)
    with pytest.raises(CohortError, match="other subjects"):
        drawn[0]


def test_structures_are_drawn_alike_however_rare_they_are():
    rare = [pair.template_mask.sum() == 20 for step in range(100) for pair in pairs(empty=0.0)[step]]
    assert 0.4 < np.mean(rare) < 0.6


def test_a_bank_of_other_structures_is_refused():
    slices = stored()
    bank = TemplateBank.of(slices, Mean(), [0])
    for number, template in enumerate(bank.templates):
        bank.templates[number] = template.model_copy(update={"dataset": "elsewhere"})
    with pytest.raises(CohortError, match="No structure"):
        TrainingPairs(slices, range(8, 20), bank, Mean(), batch=1, steps=1, seed=0)
