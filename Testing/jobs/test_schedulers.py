import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from small_job import contents

from SSLSegLib.errors import JobError
from SSLSegLib.jobs import cluster_cases, schedulers
from SSLSegLib.jobs.certificates import Certificate, throwaway_certificate
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.runner import run_job
from SSLSegLib.jobs.schedulers import connected, parse_scheduler

NO_SCHEDULERS = ["", "dask", "dask://", "dask://host", "tls://host", "slurm:", "local?data=send", "ftp://x:1"]
NO_OPTIONS = ["?data=", "?ca=a.pem", "?ca=a.pem&cert=b.pem&password=c"]


@pytest.mark.parametrize("text", [*NO_SCHEDULERS, *(f"tls://host:1{options}" for options in NO_OPTIONS)])
def test_what_is_no_scheduler_is_refused(text):
    with pytest.raises(JobError, match="no scheduler"):
        parse_scheduler(text)


def test_schedulers_are_understood():
    assert parse_scheduler("local").kind == "local"
    assert parse_scheduler("dask://head:8786").target == "tcp://head:8786"
    assert parse_scheduler("dask://head:8786?data=send").send
    assert parse_scheduler("slurm:a.json").target == "a.json"
    tls = parse_scheduler("tls://head:8786?data=send&ca=/a%26b/ca.pem&cert=c+d.pem")
    assert (tls.target, tls.send) == ("tls://head:8786", True)
    assert tls.certificate == Certificate(Path("/a&b/ca.pem"), Path("c+d.pem"), Path("c+d.pem"))


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


@pytest.fixture
def certificate(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificates, is not installed here")
    with throwaway_certificate(tmp_path) as made:
        yield made


def options_of(certificate) -> str:
    return f"?ca={certificate.authority}&cert={certificate.certificate}&key={certificate.key}"


def test_with_certificates_the_bytes_are_those_of_a_local_run_and_without_them_nobody_gets_in(
    tmp_path, certificate, small_manifest, small_finished, monkeypatch
):
    import dask
    import distributed

    monkeypatch.setattr(schedulers, "CONNECT_TIMEOUT", 5)
    job = Job.create(tmp_path / "job", small_manifest)
    with distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        memory_limit=None,
        protocol="tls://",
        security=certificate.security(),
    ) as cluster:
        address = cluster.scheduler_address
        (tmp_path / "others").mkdir()
        with throwaway_certificate(tmp_path / "others") as another:
            for scheduler, said in (
                (address.replace("tls", "dask"), "No Dask scheduler answers"),
                (address, "names none"),
                (address + options_of(another), "refuses our certificate"),
                (f"{address}?ca=/no/ca.pem&cert=/no/cert.pem", "cannot be read"),
            ):
                job.scheduler = scheduler
                with pytest.raises(JobError, match=said):
                    run_job(job)
        job.scheduler = address + options_of(certificate)
        assert run_job(job).status == "finished"
        tls = "distributed.comm.tls"
        own = {"ca-file": certificate.authority, "client.cert": certificate.certificate, "client.key": certificate.key}
        with (
            dask.config.set({f"{tls}.{name}": str(path) for name, path in own.items()}),
            connected(parse_scheduler(address), 1, tmp_path) as client,
        ):
            assert client.submit(sum, (1, 2)).result() == 3
    assert contents(job) == contents(small_finished)


def test_the_key_of_a_run_that_was_killed_is_deleted_by_the_next_one(tmp_path, certificate):
    with throwaway_certificate(tmp_path) as another:
        assert not certificate.key.exists()
        assert another.key.stat().st_mode & 0o77 == 0
    assert not list(tmp_path.glob("tls-*"))


def test_where_there_is_no_openssl_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JobError, match="openssl"), throwaway_certificate(tmp_path):
        pass


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
