import dataclasses
import json
import os
import sys
import time

import pytest
from typer.testing import CliRunner

from SSLSegLib.__main__ import app
from SSLSegLib.jobs import kinds
from SSLSegLib.jobs.lock import JobLock
from SSLSegLib.jobs.runner import run_job


def call(*arguments):
    return CliRunner().invoke(app, ["jobs", *map(str, arguments)], env={"COLUMNS": "400"})


def listed(folder):
    lines = map(json.loads, call("list", folder, "--json").stdout.splitlines())
    return {line["folder"].rsplit("/", 1)[-1]: line for line in lines}


@pytest.fixture
def jobs(tmp_path, make_job):
    done, waiting = make_job("sub/done"), make_job("waiting")
    run_job(done)
    return done, waiting


def test_all_jobs_are_listed_with_how_they_stand_and_damaged_ones_do_not_hide_the_others(tmp_path, jobs):
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "manifest.json").write_text('{"schema_version": 1, "ki')
    found = listed(tmp_path)
    assert {name: each["status"] for name, each in found.items()} == {
        "done": "finished",
        "waiting": "pending",
        "torn": "damaged",
    }
    assert found["done"]["cases"] == "4/4"
    assert "not JSON" in found["torn"]["message"]
    assert "finished" in call("list", tmp_path).stdout


def test_a_job_whose_process_died_without_a_word_is_interrupted_and_can_be_resumed(tmp_path, jobs):
    _, job = jobs
    job.write_state(job.state().model_copy(update={"status": "running"}))
    assert listed(tmp_path)["waiting"]["status"] == "interrupted"
    assert call("resume", job.folder).exit_code == 0
    assert job.finished(list("abcd")) == list("abcd")


def test_a_job_on_another_machine_is_running_while_its_heart_beats_and_interrupted_when_it_is_silent(tmp_path, jobs):
    _, job = jobs
    job.write_state(job.state().model_copy(update={"status": "running"}))
    job.lock_path.write_text('{"pid": 1, "process_start": 1.0, "host": "elsewhere", "token": "x"}')
    assert listed(tmp_path)["waiting"]["status"] == "running"
    os.utime(job.lock_path, (time.time() - 600, time.time() - 600))
    assert listed(tmp_path)["waiting"]["status"] == "interrupted"


@pytest.mark.parametrize(
    "content", ['{"schema_version": 1, "status": "fin', "", '{"schema_version": 1, "status": "lost"}']
)
def test_only_resuming_a_job_puts_its_damaged_state_aside_and_keeps_whole_results(jobs, make_job, content):
    job = jobs[0]
    (job.folder / "state.json").write_text(content)
    job.result_folder("b").joinpath("count.txt").write_text("edited")
    kept = {case: (job.result_folder(case) / "when.txt").read_bytes() for case in "abcd"}
    refused = CliRunner().invoke(app, ["run", str(job.folder)], env={"COLUMNS": "400"})
    assert refused.exit_code == 2
    assert f"jobs resume {job.folder}" in refused.output
    assert (job.folder / "state.json").read_text() == content
    done = call("resume", job.folder)
    assert done.exit_code == 0, done.output
    (aside,) = (job.logs / "replaced").glob("state.json-*")
    assert str(aside) in done.output
    assert aside.read_text() == content
    assert job.state().status == "finished"
    made_again = [case for case in "abcd" if (job.result_folder(case) / "when.txt").read_bytes() != kept[case]]
    assert made_again == ["b"]


def test_a_newer_state_is_not_put_aside(jobs):
    job = jobs[0]
    (job.folder / "state.json").write_text('{"schema_version": 2}')
    done = call("resume", job.folder)
    assert done.exit_code == 2
    assert "newer version" in done.output
    assert (job.folder / "state.json").read_text() == '{"schema_version": 2}'


def test_a_cancelled_run_says_on_one_line_how_to_resume_also_where_the_path_has_spaces(make_job, monkeypatch):
    job = make_job("a folder [of mine] " + "long" * 30)

    def interrupted(job, progress):
        raise KeyboardInterrupt

    kind = dataclasses.replace(sys.modules["counting_worker"].KIND, run=interrupted)
    monkeypatch.setitem(kinds._KINDS, "counting", kind)
    said = CliRunner().invoke(app, ["run", str(job.folder)], env={"COLUMNS": "60"})
    assert said.exit_code == 3, said.output
    assert f"Cancelled. Resume with: python -m SSLSegLib run '{job.folder}'\n" in said.output


def test_a_job_is_shown_with_its_latest_events(jobs):
    shown = call("show", jobs[0].folder, "--events", "2").stdout
    assert "counting" in shown
    assert "finished" in shown
    assert shown.count("\n  2") == 2


def test_cancelling_a_job_that_runs_in_another_process_ends_it(jobs, start, make_job):
    job = make_job("long", seconds=300)
    child = start(job)
    while job.state().status != "running" and child.running:
        time.sleep(0.02)
    said = call("cancel", job.folder)
    assert said.exit_code == 0, said.output
    assert "cancelled" in said.output
    child.wait(60)
    assert not child.running
    assert "not running" in call("cancel", jobs[0].folder).stdout


def test_cleaning_removes_what_killed_runs_left_and_nothing_else(tmp_path, jobs):
    job = jobs[0]
    kept = {path for path in job.folder.rglob("*") if path.is_file()}
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "x").write_text("x")
    for left in ("scratch/c1", "results/.part-b", "logs/replaced/b-1"):
        (job.folder / left).mkdir(parents=True)
        (job.folder / left / "file").write_bytes(bytes(1000))
    (job.folder / "results" / ".part-link").symlink_to(precious)
    (job.folder / ".tmp-1-state.json").write_text("half")
    assert "4 leftovers would be removed" in call("clean", job.folder, "--dry-run").stdout
    assert "4 leftovers removed" in call("clean", job.folder).stdout
    assert (job.folder / "logs" / "replaced" / "b-1" / "file").exists()
    assert "1 leftovers removed" in call("clean", job.folder, "--replaced").stdout
    assert {path for path in job.folder.rglob("*") if path.is_file()} - kept <= {job.folder / ".lock.json.guard"}
    assert kept <= {path for path in job.folder.rglob("*") if path.is_file()}
    assert (precious / "x").read_text() == "x"


def test_a_running_job_is_not_cleaned(jobs):
    job = jobs[1]
    (job.folder / "scratch").mkdir()
    with JobLock(job.lock_path):
        said = call("clean", job.folder)
    assert said.exit_code == 2
    assert (job.folder / "scratch").exists()
