"""The job that refines another one: what it asks of the training, where that lies, and what it undoes only once."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from SSLSegLib.__main__ import app
from SSLSegLib.errors import JobError
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.lock import JobLock
from SSLSegLib.jobs.manifest import write_manifest
from SSLSegLib.jobs.runner import run_job
from SSLSegLib.jobs.selftraining import selftraining_manifest, training_folder
from SSLSegLib.processes import library_path
from SSLSegLib.selftraining import rounds
from SSLSegLib.selftraining.folders import WorkFolder
from SSLSegLib.selftraining.options import SelfTrainingOptions
from SSLSegLib.selftraining.report import Outcome
from SSLSegLib.selftraining.settings import check_settings


class FakeTraining:
    """Stands for the rounds: writes down what it was asked and leaves finished rounds."""

    def __init__(self, monkeypatch):
        self.asked = []
        self.rounds = 2
        monkeypatch.setattr(rounds, "self_train", self.self_train)
        monkeypatch.setattr(rounds, "train_labelled_only", self.train_labelled_only)

    def self_train(self, cohort, results, work, options, **how):
        check_settings(WorkFolder(work), cohort, options)
        self.asked.append(("rounds", work.name, options, sorted(results)))
        for number in range(1, self.rounds + 1):
            WorkFolder(work).round(number).report.parent.mkdir(parents=True, exist_ok=True)
            WorkFolder(work).round(number).report.touch()
        return Outcome(rounds=(), stopped="limit")

    def train_labelled_only(self, cohort, results, work, options, **how):
        self.asked.append(("labelled only", work.name, options, sorted(results)))


@pytest.fixture
def training(monkeypatch):
    return FakeTraining(monkeypatch)


@pytest.fixture
def labelled(tmp_path, small_finished):
    """A finished pseudo-labelling job of one's own."""
    shutil.copytree(small_finished.folder, tmp_path / "labelled")
    return Job.open(tmp_path / "labelled")


@pytest.fixture
def refinement(tmp_path, labelled):
    def make(name="refinement", **parameters):
        return Job.create(tmp_path / name, selftraining_manifest(labelled, device="cpu", **parameters))

    return make


def test_a_refinement_asks_for_what_its_manifest_says(training, refinement):
    job = refinement(preset="standard", rounds=1, configuration="2d", seed=7)
    assert run_job(job).status == "finished"
    ((what, folder, options, cases),) = training.asked
    assert (what, folder, cases) == ("rounds", "selftraining", ["c1", "c2", "c3"])
    assert (options.preset, options.rounds, options.configuration) == ("standard", 1, "2d")
    assert (options.seed, options.devices) == (7, ("cpu",))


def test_a_refinement_may_be_the_baseline(training, refinement):
    run_job(refinement(labelled_only=True))
    assert training.asked[0][0] == "labelled only"


def test_a_training_with_other_options_is_put_beside_the_one_there(training, refinement, labelled):
    run_job(refinement("first", preset="quick"))
    run_job(refinement("other", preset="quick", configuration="3d_fullres"))
    run_job(refinement("more", preset="quick", rounds=5))  # how far to go is no other training
    run_job(refinement("third", preset="standard"))
    assert [folder for _, folder, _, _ in training.asked] == [
        "selftraining",
        "selftraining-2",
        "selftraining",
        "selftraining-3",
    ]
    cohort = labelled.manifest.checked_parameters().loaded_cohort()
    again = training_folder(labelled, cohort, SelfTrainingOptions.of("standard"))
    assert again.name == "selftraining-3"


def test_rounds_are_undone_once_and_not_again_when_the_job_is_resumed(training, refinement, labelled):
    run_job(refinement("first"))
    job = refinement("second", revert_to=1)
    run_job(job)
    assert json.loads((job.folder / "reverted.json").read_text()) == {"rounds": [2]}
    assert len(list((labelled.folder / "selftraining" / "reverted").iterdir())) == 1
    run_job(job)
    assert len(list((labelled.folder / "selftraining" / "reverted").iterdir())) == 1


def test_a_job_is_refined_by_one_training_at_a_time(training, refinement, labelled):
    with JobLock(labelled.lock_path), pytest.raises(JobError, match="runs this job"):
        run_job(refinement())
    assert training.asked == []


def test_a_job_without_labels_is_refused(training, tmp_path, small_manifest, make_job):
    for source, words in (
        (Job.create(tmp_path / "new", small_manifest), "no pseudo-labels yet"),
        (make_job("counting"), "no job that labels"),
    ):
        with pytest.raises(JobError, match=words):
            run_job(Job.create(tmp_path / f"refine-{source.folder.name}", selftraining_manifest(source)))


def _with_other_content(manifest, role):
    other = manifest.inputs[role].model_copy(update={"sha256": "0" * 64})
    return manifest.model_copy(update={"inputs": {**manifest.inputs, role: other}})


def test_scans_that_have_changed_since_they_were_labelled_are_refused_but_not_other_weights(training, labelled):
    write_manifest(labelled.folder / "manifest.json", _with_other_content(labelled.manifest, "weights"))
    assert call("self-train", labelled.folder, "--device", "cpu").exit_code == 0
    write_manifest(labelled.folder / "manifest.json", _with_other_content(labelled.manifest, "c1/image_0"))
    said = call("self-train", labelled.folder, "--device", "cpu")
    assert said.exit_code == 2
    assert "c1" in said.output
    assert "has other content" in said.output
    assert len(training.asked) == 1


def test_an_estimate_of_quality_is_not_made_of_other_scans_than_its_manifest_names(tmp_path, small_manifest):
    manifest = _with_other_content(small_manifest, "c0/image_0").model_copy(update={"kind": "expect"})
    with pytest.raises(JobError, match="has other content"):
        run_job(Job.create(tmp_path / "expect", manifest))


@pytest.mark.parametrize("place", ["selftraining/rounds", "selftraining-2", "left-out/c0", "predictions"])
def test_nothing_is_written_or_deleted_through_a_link_in_the_job_that_is_refined(training, labelled, tmp_path, place):
    (tmp_path / "mine").mkdir()
    link = labelled.folder / place
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(tmp_path / "mine")
    said = call("self-train", labelled.folder, "--device", "cpu")
    assert said.exit_code == 2
    assert f"{link} is a link" in said.output
    assert training.asked == []


def test_data_of_a_training_are_not_sent(training, refinement):
    job = refinement()
    job.scheduler = "dask://head:8786?data=send"
    with pytest.raises(JobError, match="share"):
        run_job(job)


def call(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300"})


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--device", "cuda:99", "cuda:99 cannot be used"),
        ("--device", "banana", "no device named"),
        ("--scheduler", "slurm:none.json", "none.json cannot be read: No such file"),
    ],
)
def test_a_wrong_device_or_scheduler_is_said_before_any_work(training, labelled, option, value, words):
    before = set(labelled.folder.rglob("*"))
    said = call("self-train", labelled.folder, "--device", "cpu", option, value)
    assert said.exit_code == 2
    assert words in said.output
    assert training.asked == []
    assert set(labelled.folder.rglob("*")) == before


def test_a_cancelled_training_says_how_to_go_on_and_ends_with_3(training, labelled, monkeypatch):
    def interrupted(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)  # as `jobs cancel` asks

    monkeypatch.setattr(rounds, "self_train", interrupted)
    said = call("self-train", labelled.folder, "--device", "cpu")
    assert said.exit_code == 3, said.output
    assert "The same command goes on" in said.output
    assert not labelled.lock_path.exists()


def test_a_training_in_a_finished_job_can_be_cancelled(labelled):
    holder = "import sys, time\nfrom pathlib import Path\nfrom SSLSegLib.jobs.lock import JobLock\n"
    holder += "with JobLock(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(300)"
    environment = {**os.environ, "PYTHONPATH": library_path()}
    command = [sys.executable, "-c", holder, str(labelled.lock_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout.readline() == b"held\n"
        said = call("jobs", "cancel", labelled.folder)
        assert said.exit_code == 0, said.output
        assert "The training in the job was ended; the job itself is finished" in said.output
        child.wait(30)
    assert "not running" in call("jobs", "cancel", labelled.folder).output


@pytest.mark.parametrize(
    "command", [["predict"], ["export-model", "--out", "model"], ["self-train", "--device", "cpu"]]
)
def test_a_job_that_labels_nothing_is_refused_and_the_one_it_refines_is_named(labelled, refinement, command):
    said = call(command[0], refinement().folder, *command[1:])
    assert said.exit_code == 2, said.output
    assert f"Name the job whose labels it refines: {labelled.folder}" in said.output


def test_the_command_line_says_which_training_is_the_new_one_and_names_it_to_predict(training, labelled):
    assert "--training" not in call("self-train", labelled.folder, "--device", "cpu").output
    again = call("self-train", labelled.folder, "--device", "cpu", "--configuration", "3d_fullres", "--rounds", 1)
    assert again.exit_code == 0, again.output
    assert "--training selftraining-2" in again.output
    assert [folder for _, folder, _, _ in training.asked] == ["selftraining", "selftraining-2"]
    assert labelled.state().status == "finished"
    assert not labelled.lock_path.exists()


@pytest.mark.parametrize("command", [["predict"], ["export-model", "--out", "model"]])
@pytest.mark.parametrize(
    ("folder", "words"), [("selftraining-7", "no finished round 1"), ("../elsewhere", "no folder of the job")]
)
def test_a_model_is_taken_from_a_training_of_the_job_and_from_nowhere_else(labelled, command, folder, words):
    said = call(command[0], labelled.folder, *command[1:], "--training", folder)
    assert said.exit_code == 2
    assert words in said.output.replace("\n", " ")
