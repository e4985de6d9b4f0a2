import os
import platform
import signal
import subprocess
import sys
import threading
import time

import pytest
from small_job import contents

from SSLSegLib.errors import JobError
from SSLSegLib.jobs import cluster_cases, schedulers
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.runner import run_job
from SSLSegLib.jobs.schedulers import parse_scheduler


@pytest.mark.parametrize("text", ["", "dask", "dask://", "dask://host", "slurm:", "local?data=send", "ftp://x:1"])
def test_what_is_no_scheduler_is_refused(text):
    with pytest.raises(JobError, match="no scheduler"):
        parse_scheduler(text)


def test_schedulers_are_understood():
    assert parse_scheduler("local").kind == "local"
    assert parse_scheduler("dask://head:8786").target == "tcp://head:8786"
    assert parse_scheduler("dask://head:8786?data=send").send
    assert parse_scheduler("slurm:a.json").target == "a.json"


def test_a_local_run_loads_no_dask():
    program = "import sys, SSLSegLib.jobs.schedulers as s; s.is_local('local'); print('distributed' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"


def test_a_scheduler_that_does_not_answer_is_said(tmp_path, small_manifest, monkeypatch):
    job = Job.create(tmp_path / "job", small_manifest)
    job.scheduler = "dask://127.0.0.1:1"
    monkeypatch.setattr(schedulers, "CONNECT_TIMEOUT", 1)
    with pytest.raises(JobError, match="No Dask scheduler answers"):
        run_job(job)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_two_workers_give_the_bytes_of_a_local_run_also_when_one_is_killed(tmp_path, small_manifest, small_finished):
    import distributed

    job = Job.create(tmp_path / "job", small_manifest)
    heard = []
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=None
    ) as cluster:
        job.scheduler = cluster.scheduler_address.replace("tcp", "dask")
        killed = []

        def kill_one() -> None:
            with distributed.Client(cluster, set_as_default=False) as watching:
                victim, pid = next(iter(watching.run(os.getpid).items()))
                while not watching.processing().get(victim):
                    time.sleep(0.01)
                killed.append(watching.processing()[victim])
                os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill_one, daemon=True)
        killer.start()
        assert run_job(job, lambda event, **fields: heard.append((event, fields))).status == "finished"
        killer.join(60)
    assert killed, "nobody was killed"
    assert killed[0], "it was killed with nothing in hand"
    assert contents(job) == contents(small_finished)
    results = [fields for event, fields in heard if event == "result"]
    assert sorted(fields["case"] for fields in results) == ["c1", "c2", "c3"]
    assert {fields["machine"] for fields in results} == {platform.node()}


def test_inputs_that_are_sent_give_the_same_bytes_where_no_disk_is_shared(tmp_path, small_manifest, small_finished):
    shared = cluster_cases._files_of(small_manifest, labelled=True)
    own = cluster_cases._files_of(small_manifest, case_id="c2")
    folder = small_manifest.parameters["weights"].rsplit("/", 1)[0]
    text = small_manifest.model_dump_json().replace(folder, "/elsewhere")
    files, *_ = cluster_cases.segment_case(text, "c2", shared, own)
    there = small_finished.result_folder("c2")
    assert files == {name: (there / name).read_bytes() for name in files}
    assert "result.json" in files


@pytest.fixture(autouse=True)
def forgotten():
    """What a task keeps on its worker for the next one must not live on in this process."""
    yield
    cluster_cases.forget()


def test_a_worker_that_sees_other_files_refuses_the_task(tmp_path, small_manifest):
    path = small_manifest.inputs["c2/image_0"].path
    text = small_manifest.model_dump_json().replace(path, path + ".gone")
    with pytest.raises(JobError, match="On the worker"):
        cluster_cases.segment_case(text, "c2", {}, {})
