"""``ssl-medsam2``: what it makes of its options, what it refuses, and one run from a cohort to a model and a report."""

import importlib.util
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from SSLSegLib.__main__ import app
from SSLSegLib.commands import ssl_medsam2 as command
from SSLSegLib.jobs.events import read_events
from SSLSegLib.jobs.folder import Job
from SSLSegLib.selftraining.options import Network, Schedule, SelfTrainingOptions

_SPECIFICATION = importlib.util.spec_from_file_location("small_cohort", Path(__file__).with_name("small_cohort.py"))
small_cohort = importlib.util.module_from_spec(_SPECIFICATION)
_SPECIFICATION.loader.exec_module(small_cohort)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """One labelled case, two unlabelled ones, a test case with a reference, and random weights."""
    folder = tmp_path_factory.mktemp("inputs")
    path = small_cohort.write_small_cohort(folder / "cohort", labelled=1, unlabelled=3, classes=1)
    content = json.loads(path.read_text())
    content["cases"][-1]["role"] = "test"
    path.write_text(json.dumps(content))
    small_cohort.write_random_weights(folder / "tiny.safetensors")
    return folder


@pytest.fixture
def call(inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments, code=0, cohort=None):
        places = [cohort or inputs / "cohort", "--out", tmp_path / "job of mine"]
        weights = ["--weights", inputs / "tiny.safetensors", "--threads", "1", "--no-scene"]
        done = CliRunner().invoke(app, ["ssl-medsam2", *map(str, [*places, *weights, *arguments])])
        assert done.exit_code == code, done.output
        return done.output

    return invoke


@pytest.fixture
def not_run(monkeypatch):
    """Jobs are made and not run."""
    for name in ("run_in_terminal", "print_steps", "print_outputs"):
        monkeypatch.setattr(command, name, lambda *_, **__: None)


@pytest.fixture
def made(call, not_run, tmp_path):
    """The manifest of the job that a command makes."""

    def make(*arguments):
        call(*arguments)
        job = Job.open(tmp_path / "job of mine")
        assert job.manifest.kind == "ssl-medsam2"
        return job.manifest

    return make


def test_options_of_both_steps_reach_the_job(made):
    training = ["--rounds", 4, "--preset", "paper", "--configuration", "2d", "--labelled-only"]
    labels = ["--tffs-preset", "fast", "-R", 3, "--threshold", "0.4", "--keep-all-components", "--seed", 7]
    manifest = made(*training, *labels, "--device", "cpu", "--no-report")
    parameters = manifest.checked_parameters()
    assert (parameters.training.rounds, parameters.training.configuration) == (4, "2d")
    assert parameters.training.schedule == SelfTrainingOptions.of("paper").schedule
    assert parameters.baseline
    assert (parameters.options.preset, parameters.options.insertions) == ("fast", 3)
    assert (parameters.options.threshold, parameters.options.largest_component) == (0.4, False)
    assert (manifest.seed, parameters.training.seed) == (7, 7)
    assert (parameters.device, parameters.training.devices) == ("cpu", ("cpu",))
    assert (parameters.report, parameters.scene) == (False, False)


def test_left_out_options_are_those_of_self_train_and_tffs(made):
    parameters = made().checked_parameters()
    expected = SelfTrainingOptions.of("quick", devices=("auto",), seed=42)
    assert parameters.training == expected
    assert parameters.options.insertions == 5
    assert not parameters.baseline


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "cuda:99"], "cuda:99 cannot be used"),
        (["--scheduler", "dask://h:1?data=send"], "disk that all machines share"),
        (["--scheduler", "nowhere"], "is no scheduler"),
        (["--weights", "no-such"], "no-such"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_written(call, not_run, tmp_path, arguments, said):
    assert said in call(*arguments, code=2)
    assert not (tmp_path / "job of mine").exists()


def test_a_baseline_without_test_cases_to_compare_on_is_refused(call, not_run, tmp_path):
    other = small_cohort.write_small_cohort(tmp_path / "other", labelled=1, unlabelled=1, classes=1)
    assert "Leave --labelled-only out" in call("--labelled-only", code=2, cohort=other)
    assert not (tmp_path / "job of mine").exists()


def test_one_command_goes_from_a_cohort_to_a_model_and_a_report_and_again_does_nothing_anew(
    call, tmp_path, monkeypatch
):
    real = SelfTrainingOptions.of

    def short(preset, **changes):
        """A schedule of one step in a tiny network."""
        schedule = {"optimizer": "adamw", "augmentation": "light", "warm_start": True, "workers": 0, "compile": False}
        network = Network(features=4, most_features=8, convolutions=1, patch_size=(4, 32, 32), batch_size=2)
        return real(
            preset,
            **changes,
            folds=1,
            network=network,
            schedule=Schedule(epochs=1, iterations=1, validation_iterations=1, **schedule),
        )

    monkeypatch.setattr(SelfTrainingOptions, "of", short)
    arguments = ["--rounds", 1, "-R", 1, "--threshold", "0.05", "--keep-all-components", "--device", "cpu"]
    said = call(*arguments)
    job = Job.open(tmp_path / "job of mine")
    assert job.state().status == "finished"
    assert job.finished(["c1", "c2"]) == ["c1", "c2"]
    for name in (
        "selftraining/rounds/1/predictions/c1.nii.gz",
        "predictions/round_1/c3/labels.nii.gz",
        "report/report.html",
    ):
        assert (job.folder / name).is_file(), name
    assert not (job.folder / "selftraining/baseline").exists()
    assert "Self-training, round 1" in said
    assert f"Model and labels: {job.folder / 'selftraining'}" in said
    assert f"predict '{job.folder}' IMAGES" in said
    events = len(read_events(job.events_path))
    call(*arguments)
    stages = [each["stage"] for each in read_events(job.events_path)[events:] if each["event"] == "stage"]
    assert not [stage for stage in stages if "round 1" in stage or stage == "Segmenting"]
