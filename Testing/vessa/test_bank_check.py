"""A bank that a run would fail on is told before the run, without decoding its pictures; and thinned out by command."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny import make_cohort
from typer.testing import CliRunner

from SSLSegLib.__main__ import app
from SSLSegLib.errors import CohortError
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.runner import run_job
from SSLSegLib.vessa import bank_files
from SSLSegLib.vessa.bank_check import check_bank, require_whole
from SSLSegLib.vessa.bank_files import (
    BankContent,
    Template,
    read_bank,
    read_features,
    read_record,
    remove_templates,
    write_bank,
)

COUNT = 4


@pytest.fixture
def bank(tmp_path, monkeypatch):
    """A bank of four templates; nothing may decode a picture of it unless a test allows it."""
    templates = [
        Template(id=f"s{n}", dataset="d", subject="x", modality="MR", position=0, targets=("a", "b"))
        for n in range(COUNT)
    ]
    pictures = [np.random.default_rng(n).integers(0, 255, (60, 50, 3), np.uint8) for n in range(COUNT)]
    masks = [{"a": pictures[0][..., 0] > 9, "b": pictures[0][..., 1] > 99}] * COUNT
    folder = tmp_path / "bank"
    write_bank(folder, BankContent(templates, pictures, masks, np.eye(COUNT, dtype=np.float32), "random"))
    monkeypatch.setattr(bank_files, "_read_png", None)
    return folder


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def empty(path):
    path.write_bytes(b"")


def other_size(path):
    shutil.copyfile(path.parents[1] / "other.png", path)


def command(*arguments, code=0, said=""):
    done = CliRunner().invoke(app, ["vessa", *map(str, arguments)], input=said)
    assert done.exit_code == code, done.output
    return " ".join(done.output.split())


def test_a_whole_bank_has_nothing_to_say(bank):
    assert check_bank(bank) == (read_record(bank), {})
    assert check_bank(bank).problem() == ""
    assert len(require_whole(bank).templates) == COUNT


@pytest.mark.parametrize("name", ["images/s1.png", "masks/s1.0.png", "masks/s1.1.png"])
@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: path.unlink(), "is missing"),
        (cut, "is no whole picture"),
        (empty, "is no whole picture"),
        (lambda path: path.write_text("a text of more than twenty-four letters"), "is no whole picture"),
    ],
)
def test_a_damaged_file_of_a_template_is_named_with_the_way_out(bank, name, harm, words):
    harm(bank / name)
    assert check_bank(bank).damaged == {"s1": f"{name} {words}"}
    with pytest.raises(CohortError) as caught:
        require_whole(bank)
    assert f"One of the 4 templates of the bank is damaged: {name} {words}" in caught.value.problem
    assert "--remove-damaged" in caught.value.remedy
    assert "s1" in caught.value.remedy


def test_a_mask_of_another_size_than_its_picture_is_damage(bank, tmp_path):
    bank_files._write_png(bank / "masks" / "s2.1.png", np.zeros((50, 60), np.uint8))
    assert check_bank(bank).damaged == {"s2": "masks/s2.1.png is not of the size of its picture"}


def test_several_damaged_templates_are_counted(bank):
    for number in range(3):
        (bank / "images" / f"s{number}.png").unlink()
    assert check_bank(bank).problem().startswith("3 of the 4 templates of the bank are damaged: images/s0.png")


def replaced(change):
    def harm(folder):
        record = json.loads((folder / "bank.json").read_text())
        change(record)
        (folder / "bank.json").write_text(json.dumps(record))

    return harm


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: (folder / "bank.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "bank.json").unlink(), "bank.json is missing"),
        (lambda folder: (folder / "features.npy").unlink(), "features.npy is missing"),
        (lambda folder: cut(folder / "features.npy"), "features.npy is damaged"),
        (lambda folder: empty(folder / "features.npy"), "features.npy is damaged"),
        (replaced(lambda record: record["templates"].pop()), "features.npy is not that of its templates"),
        (lambda folder: np.save(folder / "features.npy", np.full((4, 4), np.nan, np.float32)), "none"),
    ],
)
def test_a_bank_of_which_nothing_can_be_used_is_refused_by_what_is_wrong(bank, harm, words):
    harm(bank)
    with pytest.raises(CohortError, match=words) as caught:
        check_bank(bank)
    assert "vessa bank" in caught.value.remedy


def test_a_folder_of_something_else_is_no_bank(tmp_path):
    (tmp_path / "holiday.txt").write_text("mine")
    with pytest.raises(CohortError, match="holds no template bank"):
        check_bank(tmp_path)


def test_what_the_check_calls_whole_can_be_read(bank, monkeypatch):
    monkeypatch.undo()
    assert len(read_bank(bank).templates) == len(require_whole(bank).templates)


def test_damaged_templates_can_be_taken_out_and_the_bank_is_whole_again(bank):
    (bank / "images" / "s0.png").unlink()
    cut(bank / "masks" / "s3.0.png")
    assert remove_templates(bank, check_bank(bank).damaged) == 2
    assert [each.id for each in require_whole(bank).templates] == ["s1", "s2"]
    np.testing.assert_array_equal(read_features(bank, read_record(bank)), np.eye(COUNT)[1:3])


@pytest.mark.parametrize("file", ["features", "bank.json"])
def test_a_change_that_is_cut_off_leaves_the_bank_as_it_was(bank, monkeypatch, file):
    def killed(source, target):
        if Path(target).name.startswith(file):
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.undo()
    rename, before = os.replace, read_bank(bank)
    for _ in range(2):  # each of the two names of the vectors in its turn
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", killed)
            with pytest.raises(KeyboardInterrupt):
                remove_templates(bank, ["s0"])
        assert read_bank(bank).templates == before.templates
        np.testing.assert_array_equal(read_bank(bank).features, before.features)
        write_bank(bank, before)
    assert remove_templates(bank, ["s0"]) == COUNT - 1
    np.testing.assert_array_equal(read_bank(bank).features, np.eye(COUNT)[1:])
    assert len(list(bank.glob("features*"))) == 1


# The command line


@pytest.mark.parametrize("way", ["segment", "guide", "bank"])
def test_a_run_on_a_damaged_bank_is_refused_before_the_scans_are_read(bank, tmp_path, monkeypatch, way):
    from SSLSegLib.commands import vessa, vessa_bank

    for module in (vessa, vessa_bank):
        monkeypatch.setattr(module, "load_checked_cohort", None)
    cut(bank / "images" / "s1.png")
    job = tmp_path / "job"
    places = ("--out", bank) if way == "bank" else ("--bank", bank, "--out", job)
    said = command(way, tmp_path, *places, code=2)
    assert "images/s1.png is no whole picture" in said
    assert "--remove-damaged" in said
    assert not job.exists()


def test_a_job_whose_bank_was_damaged_since_is_told_before_its_cases_are_checked(bank, tmp_path, monkeypatch):
    from SSLSegLib.jobs import vessa
    from SSLSegLib.jobs.vessa import VessaParameters

    monkeypatch.undo()
    cohort = make_cohort(tmp_path / "cohort", labelled=1, unlabelled=1)
    parameters = VessaParameters(cohort=cohort.to_dict(), bank=str(bank), bank_fingerprint="", sam2="none")
    manifest = bank_manifest(parameters)
    monkeypatch.setattr(vessa, "check_cases", None)
    cut(bank / "images" / "s1.png")
    with pytest.raises(CohortError, match=r"images/s1\.png is no whole picture"):
        run_job(Job.create(tmp_path / "job", manifest))


def bank_manifest(parameters):
    from SSLSegLib.jobs.manifest import Manifest

    return Manifest(kind="vessa", parameters=parameters.model_dump(mode="json"))


def test_the_templates_of_a_bank_are_listed_with_what_is_wrong_with_them(bank):
    (bank / "masks" / "s2.0.png").unlink()
    said = command("bank", bank, "--list")
    assert "4 templates, indexed by random" in said
    assert all(f"s{number}" in said for number in range(COUNT))
    assert "masks/s2.0.png is missing" in said


def test_templates_are_taken_out_by_name_after_a_yes(bank):
    assert "Nothing was changed" in command("bank", bank, "--remove", "s1", said="n\n")
    assert len(read_record(bank).templates) == COUNT
    assert "2 templates taken out, 2 left" in command("bank", bank, "--remove", "s1", "--remove", "s[3]", said="y\n")
    assert [each.id for each in require_whole(bank).templates] == ["s0", "s2"]
    assert not list(bank.rglob("s1.*"))


def test_a_name_that_no_template_has_changes_nothing(bank):
    said = command("bank", bank, "--remove", "s0", "--remove", "s9", "--yes", code=2)
    assert "no template 's9'" in said
    assert len(read_record(bank).templates) == COUNT


def test_damaged_templates_are_taken_out_by_one_option(bank):
    assert "No template is damaged" in command("bank", bank, "--remove-damaged", "--yes")
    (bank / "images" / "s0.png").unlink()
    said = command("bank", bank, "--remove-damaged", "--yes", "--list")
    assert "1 templates taken out, 3 left" in said
    assert "3 templates, indexed" in said
    assert len(require_whole(bank).templates) == 3


def test_a_bank_is_not_emptied_by_command(bank):
    assert "No template would be left" in command("bank", bank, "--remove", "*", "--yes", code=2)
    assert len(require_whole(bank).templates) == COUNT


def test_the_command_says_which_folder_it_needs(bank, tmp_path):
    assert "Add --out" in command("bank", tmp_path, code=2)
    assert "not with --out" in command("bank", tmp_path, "--out", bank, "--list", code=2)
    assert "holds no template bank" in command("bank", tmp_path, "--list", code=2)
