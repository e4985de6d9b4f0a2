"""The demo's choices: which job it makes, what it says when it comes back, and when it trains."""

import importlib.util
from pathlib import Path

import pytest
from typer.testing import CliRunner

from SSLSegLib.__main__ import app
from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.commands import demo
from SSLSegLib.jobs import fingerprint
from SSLSegLib.jobs.folder import Job

_SPECIFICATION = importlib.util.spec_from_file_location("small_cohort", Path(__file__).with_name("small_cohort.py"))
small_cohort = importlib.util.module_from_spec(_SPECIFICATION)
_SPECIFICATION.loader.exec_module(small_cohort)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    small_cohort.write_small_cohort(folder / "cohort", labelled=1, unlabelled=1, classes=1, slices=3)
    small_cohort.write_random_weights(folder / "tiny.safetensors")
    return folder


@pytest.fixture
def made(inputs, tmp_path, monkeypatch):
    """What the demo made and said for its arguments, without running it: that is tested elsewhere."""
    monkeypatch.setenv("COLUMNS", "400")
    jobs = []

    def not_run(job, **_):
        jobs.append(job)

    monkeypatch.setattr("SSLSegLib.commands.running.run_in_terminal", not_run)
    monkeypatch.setattr(demo, "print_steps", lambda job, cohort: None)

    def call(*arguments):
        weights = ["--weights", str(inputs / "tiny.safetensors"), "--threads", "1", "--device", "cpu"]
        done = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "out"), *weights, *map(str, arguments)])
        assert done.exit_code == 0, done.output
        return jobs[-1], done.output

    return call


def test_generated_scans_are_trained_on_and_a_users_cohort_only_if_asked(made, inputs, monkeypatch):
    def few(folder, **_):
        small_cohort.write_small_cohort(folder, labelled=1, unlabelled=1, classes=1, slices=3)

    monkeypatch.setattr("SSLSegLib.cases.phantoms.make_phantom_cohort", few)
    job = made()[0]
    assert job.manifest.kind == "ssl-medsam2"
    assert job.manifest.checked_parameters().training.folds == 2
    assert made("--no-self-training")[0].manifest.kind == "tffs"
    job, said = made("--cohort", inputs / "cohort")
    assert job.manifest.kind == "tffs"
    assert f"self-train {job.folder}" in said
    job, said = made("--cohort", inputs / "cohort", "--self-training", "--preset", "paper")
    assert job.manifest.kind == "ssl-medsam2"
    assert job.manifest.checked_parameters().training.schedule.epochs == 1000
    assert job.manifest.checked_parameters().training.folds == 5
    assert "hours on a CPU" in said


def test_a_finished_job_is_shown_again_with_its_date_and_never_for_other_code(made, inputs, monkeypatch):
    job, said = made("--cohort", inputs / "cohort")
    assert "was done on" not in said
    ended = job.state().model_copy(update={"status": "finished", "ended": "2031-05-06T07:08:09+00:00"})
    job.write_state(ended)
    again, said = made("--cohort", inputs / "cohort")
    assert again.folder == job.folder
    assert "was done on 2031-05-06T07:08:09+00:00 with the same scans, settings, weights and software" in said
    monkeypatch.setattr(fingerprint, "library_digest", lambda: "another line of code")
    other, said = made("--cohort", inputs / "cohort")
    assert other.folder != job.folder
    assert "was done on" not in said
    assert f"Not shown, since made with other settings, weights or software: {job.folder.name}" in said


def test_other_weights_under_the_same_name_make_another_job(made, inputs):
    job, _ = made("--cohort", inputs / "cohort")
    small_cohort.write_random_weights(inputs / "tiny.safetensors", seed=1)
    assert made("--cohort", inputs / "cohort")[0].folder != job.folder


def test_the_demo_runs_from_a_cohort_to_a_report(inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    arguments = ["--cohort", inputs / "cohort", "--out", tmp_path, "--weights", inputs / "tiny.safetensors"]
    done = CliRunner().invoke(app, ["demo", *map(str, arguments), "--threads", "1", "--device", "cpu"])
    assert done.exit_code == 0, done.output
    (folder,) = tmp_path.glob("job-small-*")
    assert Job.open(folder).state().status == "finished"
    assert Cohort.load(inputs / "cohort").unlabelled[0].id in done.output
    assert "report.html" in done.output
