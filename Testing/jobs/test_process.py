import errno
import json
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest

from SSLSegLib.errors import JobError
from SSLSegLib.jobs.events import read_events
from SSLSegLib.jobs.process import cancel_job, start_job
from SSLSegLib.processes import LIBRARY


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def is_gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def grandchild_of(job):
    def pids():
        return [event["grandchild"] for event in read_events(job.events_path) if "grandchild" in event]

    wait_for(pids)
    return pids()[0]


def test_a_child_process_runs_the_job_and_its_events_can_be_followed(make_job, start):
    job = make_job(noise=True)
    child = start(job)
    events = [event["event"] for event in child.follow()]
    assert child.wait(60).status == "finished"
    assert events[0] == "started"
    assert events.count("result") == 4
    assert events[-1] == "finished"
    assert b"noise of a library" in (job.logs / "worker.log").read_bytes()


def test_a_child_that_fails_says_why(make_job, start):
    state = start(make_job(failing="a")).wait(60)
    assert (state.status, state.message) == ("failed", "it cannot be counted.")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_child_is_reported_and_the_job_resumes_without_redoing_results(make_job, start, tmp_path):
    gate = tmp_path / "gate"
    gate.touch()
    job = make_job(gate=str(gate))
    child = start(job)
    wait_for(lambda: job.has_result("b"))
    os.kill(child.pid, signal.SIGKILL)
    state = child.wait(60)
    assert state.status == "failed"
    assert "SIGKILL" in state.message
    done = job.finished(list("abcd"))
    assert done == ["a", "b"]
    gate.unlink()
    before = {case: (job.result_folder(case) / "when.txt").read_text() for case in done}
    assert start(job).wait(60).status == "finished"
    assert {case: (job.result_folder(case) / "when.txt").read_text() for case in done} == before
    assert job.finished(list("abcd")) == list("abcd")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_kills_at_random_moments_never_leave_a_torn_job(make_job, start):
    job, moments = make_job(seconds=0.05), random.Random(0)
    for _ in range(4):
        child = start(job)
        wait_for(lambda child=child: child.poll() or not child.running)
        time.sleep(moments.uniform(0, 0.12))
        if child.running:
            os.kill(child.pid, signal.SIGKILL)
        child.wait(60)
        read_events(job.events_path)
        job.state()
    assert start(job).wait(60).status == "finished"
    assert [(job.result_folder(case) / "count.txt").read_text() for case in "abcd"] == [f"42 {case}" for case in "abcd"]


@pytest.mark.parametrize("deaf", [False, True])
def test_cancel_ends_the_whole_tree_within_five_seconds(make_job, start, deaf):
    job = make_job(seconds=60, grandchild=True, deaf=deaf)
    child = start(job)
    grandchild = grandchild_of(job)
    began = time.monotonic()
    state = child.cancel(patience=0.5)
    assert time.monotonic() - began < 5
    assert state.status == "cancelled"
    wait_for(lambda: is_gone(child.pid) and is_gone(grandchild))


def test_a_job_can_be_cancelled_by_its_folder_alone(make_job, start):
    job = make_job(seconds=60, grandchild=True)
    child = start(job)
    grandchild = grandchild_of(job)
    assert cancel_job(job.folder).status == "cancelled"
    wait_for(lambda: is_gone(child.pid) and is_gone(grandchild))


def test_a_job_that_is_cancelled_while_its_worker_starts_is_not_done(make_job, start):
    job = make_job()
    child = start(job)
    assert cancel_job(job.folder).status == "cancelled"  # the worker is still importing
    assert child.wait(60).status == "cancelled"
    assert not job.finished(list("abcd"))
    assert not job.events_path.exists() or read_events(job.events_path) == []
    assert start(job).wait(60).status == "finished"


def test_a_job_on_another_machine_is_not_cancelled_from_here_unless_that_machine_is_gone(make_job):
    job = make_job()
    job.write_state(job.state().model_copy(update={"status": "running"}))
    job.lock_path.write_text(json.dumps({"pid": 1, "process_start": 1.0, "host": "elsewhere", "token": "x"}))
    with pytest.raises(JobError, match="runs on elsewhere"):
        cancel_job(job.folder)
    os.utime(job.lock_path, (time.time() - 600, time.time() - 600))
    assert cancel_job(job.folder).status == job.state().status == "cancelled"


def test_cancelling_never_ends_a_process_that_only_tidies_up(make_job):
    """It may be the application, or somebody else who cancels the same job."""
    job = make_job()
    program = (
        "import time; from pathlib import Path; from SSLSegLib.jobs.lock import JobLock\n"
        f"with JobLock(Path({str(job.lock_path)!r}), runs=False):\n"
        "    print(1, flush=True); time.sleep(1)\n"
        "print('still here', flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=LIBRARY) as tidying:
        tidying.stdout.readline()
        assert cancel_job(job.folder).status == "cancelled"
        assert tidying.stdout.readline().strip() == b"still here"


def test_a_job_folder_that_takes_no_more_is_said_before_a_worker_is_started(make_job, monkeypatch):
    job = make_job()

    def full(self, state):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(type(job), "write_state", full)
    with pytest.raises(JobError, match="cannot be written: No space left"):
        start_job(job.folder)


def test_a_running_job_is_not_started_twice(make_job, start):
    job = make_job(seconds=60)
    start(job)
    wait_for(lambda: job.state().status == "running")
    with pytest.raises(JobError, match="already running"):
        start(job)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_the_death_of_the_parent_ends_the_child_and_its_children(make_job):
    job = make_job(seconds=60, grandchild=True)
    here = os.path.dirname(__file__)
    program = (
        "import os, sys, time; from pathlib import Path; from SSLSegLib.processes import LIBRARY\n"
        "from SSLSegLib.jobs.process import start_job\n"
        f"sys.path.insert(0, {here!r}); import counting_worker\n"
        f"environment = {{'PYTHONPATH': os.pathsep.join([str(LIBRARY), {here!r}])}}\n"
        f"child = start_job(Path({str(job.folder)!r}), worker='counting_worker', environment=environment)\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=LIBRARY) as parent:
        child = int(parent.stdout.readline())
        grandchild = grandchild_of(job)
        parent.kill()
        parent.wait()
    wait_for(lambda: is_gone(child) and is_gone(grandchild))
    assert job.state().status == "cancelled"


def test_a_worker_that_cannot_even_start_is_reported(make_job, tmp_path):
    job = make_job()
    with pytest.raises(JobError, match="could not be started"):
        start_job(job.folder, interpreter=str(tmp_path / "no-such-python"))
    child = start_job(job.folder, worker="no_such_module")
    assert child.wait(60).status == "failed"
    assert "exit code 1" in job.state().message
