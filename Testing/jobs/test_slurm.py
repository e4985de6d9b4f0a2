"""SLURM as it really is: its own daemons are started here, one node, where they are installed."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import small_job
import small_slurm
import torch
from typer.testing import CliRunner

from SSLSegLib.__main__ import app
from SSLSegLib.errors import JobError
from SSLSegLib.files import read_json, write_json
from SSLSegLib.jobs import slurm as slurm_workers
from SSLSegLib.jobs.certificates import throwaway_certificate
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.runner import run_job
from SSLSegLib.jobs.selftraining import SelfTrainingParameters, selftraining_manifest
from SSLSegLib.jobs.slurm import (
    SlurmConfiguration,
    read_slurm_configuration,
    slurm_client,
    slurm_cluster_arguments,
)
from SSLSegLib.processes import LIBRARY
from SSLSegLib.progress import silent
from SSLSegLib.selftraining.trainer import load_checkpoint

SMALL = {"workers": 1, "cores": 1, "memory": "1500MB", "walltime": "00:20:00", "start_timeout": 300}


@pytest.fixture(scope="module")
def slurm():
    """A SLURM of one node."""
    if reason := small_slurm.missing():
        pytest.skip(reason)
    with (
        tempfile.TemporaryDirectory(prefix="slurm-") as folder,
        small_slurm.small_slurm(Path(folder)) as running,
        pytest.MonkeyPatch.context() as patched,
    ):
        for name, value in running.environment.items():
            patched.setenv(name, value)
        yield running


def configuration(folder: Path, **changed) -> Path:
    write_json(folder / "slurm.json", {**SMALL, **changed})
    return folder / "slurm.json"


def assert_no_slurm_job_is_left(slurm) -> None:
    """SLURM takes a moment to end what was cancelled."""
    deadline = time.monotonic() + 30
    while left := slurm.jobs():
        assert time.monotonic() < deadline, f"SLURM jobs were left: {left}"
        time.sleep(0.5)


def wait_for(what):
    deadline = time.monotonic() + 60
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)
    return found


def test_a_slurm_configuration_becomes_a_script_that_asks_for_it(tmp_path):
    from dask_jobqueue import SLURMCluster

    asked = SlurmConfiguration(
        workers=2, cores=8, memory="32GB", queue="gpu", gpus=1, prologue=("module load x",), directives=("--nice=5",)
    )
    (tmp_path / "with a space").mkdir()
    with (
        throwaway_certificate(tmp_path / "with a space") as certificate,
        SLURMCluster(**slurm_cluster_arguments(asked, tmp_path / "of 100% use", certificate.security())) as cluster,
    ):
        script = cluster.job_script()
        address = cluster.scheduler_address
    assert address.startswith("tls://")
    for line in (
        "#SBATCH -p gpu",
        "#SBATCH --gres=gpu:1",
        "#SBATCH --nice=5",
        "#SBATCH --cpus-per-task=8",
        f'#SBATCH --output="{tmp_path}/of 100%% use/slurm-%j.out"',
        "module load x",
        f"export PYTHONPATH={LIBRARY}",
        "--resources GPU=1",
        "--nthreads 1",
        address,
        f"--tls-key '{certificate.key}'",
    ):
        assert line in script


def test_a_wrong_slurm_configuration_names_the_field(tmp_path):
    with pytest.raises(JobError, match="workers"):
        read_slurm_configuration(configuration(tmp_path, workers=0))


def test_where_there_is_no_slurm_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JobError, match="sbatch"), slurm_client(SlurmConfiguration(**SMALL), 1, tmp_path):
        pass


def test_nobody_without_the_runs_certificate_can_talk_to_scheduler_or_workers(tmp_path, slurm):
    import distributed

    logs = tmp_path / "of a run"
    with slurm_client(SlurmConfiguration(**SMALL), 1, logs) as client:
        assert client.submit(sum, (1, 2)).result() == 3
        (worker,) = client.scheduler_info()["workers"]
        with throwaway_certificate(tmp_path) as other:
            for address in (client.scheduler.address, worker):
                assert address.startswith("tls://")
                for protocol, security in (("tcp", None), ("tls", other.security())):
                    with pytest.raises(OSError, match=r"closed|certificate"):
                        distributed.Client(address.replace("tls", protocol), security=security, timeout=3)
        port = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.http_server.port)
        for page in ("info/main/workers.html", "json/identity.json", "health"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=10)
        assert [path.stat().st_mode & 0o77 for path in logs.glob("tls-*")] == [0], "others may look at the key"
    assert not list(logs.glob("tls-*"))
    assert_no_slurm_job_is_left(slurm)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"queue": "nosuch"}, "invalid partition"),
        ({"cores": 64}, "not available"),
        ({"prologue": ["echo no such module", "exit 3"]}, "no such module"),
    ],
)
def test_what_slurm_refuses_or_cannot_start_is_said_at_once(tmp_path, slurm, changed, said):
    began = time.monotonic()
    with pytest.raises(JobError, match=said), slurm_client(SlurmConfiguration(**SMALL | changed), 1, tmp_path / "logs"):
        pass
    assert time.monotonic() - began < SMALL["start_timeout"] / 2
    assert_no_slurm_job_is_left(slurm)


def test_when_the_slurm_job_of_the_only_worker_is_cancelled_another_one_ends_the_work_with_the_same_bytes(
    tmp_path, slurm
):
    manifest = small_job.small_manifest(tmp_path / "inputs", unlabelled=6, slices=20)
    here, there = (Job.create(tmp_path / name, manifest) for name in ("here", "on slurm"))
    assert run_job(here).status == "finished"
    there.scheduler = f"slurm:{configuration(tmp_path)}"
    cancelled, warnings = [], []

    def cancel_after_the_first_case(event, **fields):
        if event == "result" and not cancelled:
            cancelled.extend(slurm.jobs())
            slurm.ask("scancel", *cancelled)
        if event == "warning":
            warnings.append(fields["message"])

    assert run_job(there, cancel_after_the_first_case).status == "finished"
    assert small_job.contents(there) == small_job.contents(here)
    assert len(cancelled) == 1
    assert any("All Dask workers are gone" in message for message in warnings), "it was cancelled too late"
    assert len(list(there.logs.glob("slurm-*.out"))) == 2, "the job of each worker says what it did, in the job's logs"
    assert_no_slurm_job_is_left(slurm)


def test_a_slurm_job_that_ends_before_its_worker_is_there_is_replaced(tmp_path, slurm, monkeypatch):
    monkeypatch.setattr(slurm_workers, "_REPLACE_SECONDS", 1)
    three = SlurmConfiguration(**SMALL | {"workers": 3})  # on two CPUs: the third waits in the queue
    with slurm_client(three, 3, tmp_path / "logs"):
        queued = wait_for(lambda: slurm.jobs("PENDING"))
        slurm.ask("scancel", *queued)
        wait_for(lambda: set(slurm.jobs("PENDING")) - set(queued))
    assert_no_slurm_job_is_left(slurm)


def test_jobs_cancel_leaves_no_slurm_job_and_a_job_that_can_be_resumed(tmp_path, slurm):
    manifest = small_job.small_manifest(tmp_path / "inputs", unlabelled=6, slices=20)
    job = Job.create(tmp_path / "job", manifest)
    scheduler = f"slurm:{configuration(tmp_path, workers=2)}"
    command = [sys.executable, "-m", "SSLSegLib"]
    surroundings = {**os.environ, "PYTHONPATH": str(LIBRARY)}
    with (tmp_path / "said.txt").open("w+") as said:
        running = subprocess.Popen(
            [*command, "run", str(job.folder), "--scheduler", scheduler],
            cwd=tmp_path,
            env=surroundings,
            stdout=said,
            stderr=said,
        )
        deadline = time.monotonic() + 400
        while '"result"' not in (job.events_path.read_text() if job.events_path.is_file() else ""):
            assert running.poll() is None, (tmp_path / "said.txt").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert len(slurm.jobs()) == 2
        # In this process: starting another takes seconds on a busy machine, in which the job may finish.
        assert CliRunner().invoke(app, ["jobs", "cancel", str(job.folder)]).exit_code == 0
        running.wait(60)
    assert job.state().status == "cancelled"
    assert read_json(job.folder / "manifest.json")["seed"] == manifest.seed
    assert_no_slurm_job_is_left(slurm)
    assert run_job(Job.open(job.folder)).status == "finished"


TINY = small_job.small_cohort.tiny_training(
    small_job.small_cohort.ONE_ITERATION.model_copy(update={"epochs": 20, "iterations": 2}),
    folds=2,
    first_labels="given",
)


def refine(labelled: Job, folder: Path, scheduler: str, progress=silent) -> Job:
    """A real self-training, smaller than any preset, of a copy of a labelled job; returns the copy."""
    copy = Job.open(shutil.copytree(labelled.folder, folder / "labelled"))
    job = Job.create(folder / "refinement", selftraining_manifest(copy, seed=5))
    job.scheduler = scheduler
    with pytest.MonkeyPatch.context() as during:
        during.setattr(SelfTrainingParameters, "options", lambda self, seed: TINY.model_copy(update={"seed": seed}))
        assert run_job(job, progress).status == "finished"
    return copy


def trained_weights(job: Job) -> list[dict[str, torch.Tensor]]:
    found = sorted((job.folder / "selftraining" / "rounds" / "1" / "res").rglob("checkpoint_final.pth"))
    return [load_checkpoint(path)["network_weights"] for path in found]


def new_labels(job: Job) -> dict[str, bytes]:
    found = sorted((job.folder / "selftraining" / "rounds" / "1" / "predictions").glob("*.nii.gz"))
    return {path.name: path.read_bytes() for path in found}


def test_folds_are_trained_on_slurm_as_here_also_when_all_slurm_jobs_are_cancelled_half_way(tmp_path, slurm):
    labelled = Job.create(tmp_path / "job", small_job.small_manifest(tmp_path / "inputs", threshold=0.05))
    assert run_job(labelled).status == "finished"
    here = refine(labelled, tmp_path / "here", "local")
    cancelled, epochs = [], []

    def cancel_all_after_an_epoch(event, **fields):
        if event == "metric" and "epoch" in fields:
            epochs.append((fields["fold"], fields["epoch"]))
            if not cancelled:
                cancelled.extend(slurm.jobs())
                slurm.ask("scancel", *cancelled)

    scheduler = f"slurm:{configuration(tmp_path, workers=2)}"
    there = refine(labelled, tmp_path / "there", scheduler, cancel_all_after_an_epoch)
    assert len(cancelled) == 2
    # What a worker had still to say when it was killed is lost; each fold had one at most.
    unheard = {(fold, epoch) for fold in (0, 1) for epoch in range(1, 21)} - set(epochs)
    assert len(unheard) <= 2
    assert epochs.count(epochs[0]) == 1, "the fold that was cancelled did not go on from its checkpoint"
    assert new_labels(there) == new_labels(here)
    assert len(new_labels(here)) == 3
    assert len(trained_weights(here)) == 2
    for ours, theirs in zip(trained_weights(there), trained_weights(here), strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert_no_slurm_job_is_left(slurm)
