import errno
import os
import signal
import time

import counting_worker
import pytest

from SSLSegLib.errors import CaseError, JobError
from SSLSegLib.jobs.events import read_events
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.kinds import JobKind, register_kind
from SSLSegLib.jobs.lock import JobLock
from SSLSegLib.jobs.manifest import write_manifest
from SSLSegLib.jobs.runner import run_job


def run_with(job, run):
    register_kind(JobKind("counting", counting_worker.CountingParameters, counting_worker.preflight, run))
    try:
        return run_job(job)
    finally:
        register_kind(counting_worker.KIND)


def test_a_run_ends_finished_with_every_result_and_tells_both_listeners(make_job):
    job, heard = make_job(), []
    state = run_job(job.folder, lambda event, **fields: heard.append(event))
    assert state.status == job.state().status == "finished"
    assert (state.cases_done, state.cases_total) == (4, 4)
    assert job.finished(["a", "b", "c", "d"]) == ["a", "b", "c", "d"]
    assert heard == [event["event"] for event in read_events(job.events_path)]
    assert heard[0] == "started"
    assert heard[-1] == "finished"
    assert not job.lock_path.exists()


def test_running_again_redoes_only_what_is_missing_or_damaged(make_job):
    job = make_job()
    run_job(job)
    before = {case: (job.result_folder(case) / "when.txt").read_text() for case in "abcd"}
    (job.result_folder("b") / "count.txt").write_text("edited")
    run_job(job)
    after = {case: (job.result_folder(case) / "when.txt").read_text() for case in "abcd"}
    assert [case for case in "abcd" if before[case] != after[case]] == ["b"]


def test_an_error_with_a_way_out_stands_in_the_state_and_is_raised(make_job):
    job = make_job(failing="c")
    with pytest.raises(CaseError):
        run_job(job)
    state = job.state()
    assert (state.status, state.message, state.remedy) == ("failed", "it cannot be counted.", "Leave it out.")
    assert read_events(job.events_path)[-1]["case"] == "c"
    assert job.finished(["a", "b", "c"]) == ["a", "b"]


def test_an_unexpected_error_leaves_its_traceback_in_the_log(make_job):
    job = make_job()

    def broken(job, progress):
        raise ZeroDivisionError("by nought")

    with pytest.raises(ZeroDivisionError):
        run_with(job, broken)
    assert "ZeroDivisionError" in job.state().message
    assert "in broken" in (job.logs / "job.log").read_text()


@pytest.mark.parametrize(
    ("error", "words"),
    [(OSError(errno.ENOSPC, "No space"), "disk of .* is full"), (MemoryError(), "too little free memory")],
)
def test_a_full_disk_and_full_memory_are_explained(make_job, error, words):
    job = make_job()

    def broken(job, progress):
        raise error

    with pytest.raises(JobError, match=words):
        run_with(job, broken)
    assert job.state().status == "failed"
    assert job.state().remedy


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_end_leaves_a_cancelled_job_that_can_go_on(make_job, number, request):
    # A suite that a shell started in the background inherits an ignored Ctrl-C.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, inherited))
    job = make_job()

    def interrupted(job, progress):
        with job.new_result("a") as folder:
            (folder / "count.txt").write_text("42 a")
        os.kill(os.getpid(), number)

    before = signal.getsignal(signal.SIGTERM)
    assert run_with(job, interrupted).status == "cancelled"
    assert signal.getsignal(signal.SIGTERM) is before
    assert Job.open(job.folder).state().status == "cancelled"
    assert run_job(job).status == "finished"


@pytest.mark.parametrize(
    ("scheduler", "words"), [("dask://head:8786", "run on one machine"), ("slurm", "no scheduler")]
)
def test_a_job_that_cannot_be_done_on_a_cluster_says_so_and_is_not_quietly_done_here(make_job, scheduler, words):
    job = make_job()
    job.scheduler = scheduler
    with pytest.raises(JobError, match=words):
        run_job(job)
    assert job.state().status == "pending"


def test_a_job_that_runs_elsewhere_is_not_touched(make_job):
    job = make_job()
    with JobLock(job.lock_path), pytest.raises(JobError, match="runs this job"):
        run_job(job)
    assert job.state().status == "pending"
    assert not job.events_path.exists()


def test_inputs_are_looked_at_once_and_again_only_when_the_first_look_failed(make_job):
    looks = []

    def refuse(job, progress):
        looks.append("refused")
        raise CaseError("it is bad.", case_id="a")

    def accept(job, progress):
        looks.append(job.state().checked)

    job = make_job()
    for preflight, expected in ((refuse, False), (accept, True), (accept, True)):
        register_kind(JobKind("counting", counting_worker.CountingParameters, preflight, counting_worker.run))
        try:
            run_job(job)
        except CaseError:
            pass
        finally:
            register_kind(counting_worker.KIND)
        assert job.state().checked is expected
    assert looks == ["refused", False, True]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user who may not write everywhere")
def test_a_job_folder_that_cannot_be_written_is_explained(make_job):
    job = make_job()
    job.folder.chmod(0o555)
    try:
        with pytest.raises(JobError, match="cannot be written"):
            run_job(job)
    finally:
        job.folder.chmod(0o755)


def test_a_disk_too_full_for_the_state_itself_is_still_explained_to_the_caller(make_job, monkeypatch):
    job = make_job()

    def fill(job, progress):
        monkeypatch.setattr(Job, "write_state", no_space)
        progress("cases", done=1, total=4)

    def no_space(self, state):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(JobError, match=r"disk .* is full"):
        run_with(job, fill)
    monkeypatch.undo()
    assert run_job(job).status == "finished"


def test_whoever_lost_the_lock_leaves_the_state_to_the_new_owner(make_job):
    job = make_job()

    def lose(job, progress):
        job.lock_path.write_text(job.lock_path.read_text().replace('"token": "', '"token": "other'))
        job.write_state(job.state().model_copy(update={"message": "of the new owner"}))
        time.sleep(2.5)
        with pytest.raises(JobError, match="took this job over"):
            progress("stage", stage="waiting")
        raise OSError("the share is gone")

    with pytest.raises(JobError, match="the share is gone"):
        run_with(job, lose)
    assert (job.state().status, job.state().message) == ("running", "of the new owner")
    assert JobLock(job.lock_path)._may_be_mine() is False
    assert job.lock_path.exists()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_signal_behind_the_end_does_not_undo_it(make_job):
    def interrupt(event, **fields):
        if event == "finished":
            os.kill(os.getpid(), signal.SIGTERM)

    job = make_job()
    assert run_job(job, interrupt).status == job.state().status == "finished"
    assert read_events(job.events_path)[-1]["event"] == "finished"


def test_a_folder_that_was_given_to_other_work_meanwhile_is_refused(make_job):
    job = make_job()
    write_manifest(job.folder / "manifest.json", job.manifest.model_copy(update={"seed": 43}))
    with pytest.raises(JobError, match="holds other work by now"):
        run_job(job)
    assert job.state().status == "pending"


def test_going_on_with_other_software_is_said(make_job):
    job, heard = make_job(), []
    run_job(job, lambda event, **fields: heard.append(event))
    assert "warning" not in heard
    older = job.manifest.model_copy(update={"versions": {**job.manifest.versions, "torch": "1.0"}})
    write_manifest(job.folder / "manifest.json", older)
    run_job(job.folder)
    (warning,) = (event for event in read_events(job.events_path) if event["event"] == "warning")
    assert "torch 1.0 (here " in warning["message"]
