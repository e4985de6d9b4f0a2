"""SSL-MedSAM2 as a job, from a cohort to one report: real SAM2 (random weights), real nnU-Net (a few iterations)."""

import importlib.util
import json
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from SSLSegLib import pipelines
from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.errors import JobError
from SSLSegLib.jobs import fingerprint as fingerprints
from SSLSegLib.jobs.events import read_events
from SSLSegLib.jobs.fingerprint import fingerprint
from SSLSegLib.jobs.folder import Job, JobState
from SSLSegLib.jobs.manifest import read_manifest
from SSLSegLib.jobs.runner import run_job
from SSLSegLib.jobs.ssl_medsam2 import score_steps, ssl_medsam2_manifest
from SSLSegLib.selftraining import rounds
from SSLSegLib.selftraining.trainer import load_checkpoint
from SSLSegLib.tffs.chain import Tracker
from SSLSegLib.tffs.options import TffsOptions

_SPECIFICATION = importlib.util.spec_from_file_location("small_cohort", Path(__file__).with_name("small_cohort.py"))
small_cohort = importlib.util.module_from_spec(_SPECIFICATION)
_SPECIFICATION.loader.exec_module(small_cohort)

TRAINING = small_cohort.tiny_training(devices=("auto",))


def cohort_in(folder: Path) -> Cohort:
    """One labelled case, two unlabelled ones, and a test case with a reference."""
    path = small_cohort.write_small_cohort(folder / "cohort", labelled=1, unlabelled=3, classes=1)
    content = json.loads(path.read_text())
    content["cases"][-1]["role"] = "test"
    path.write_text(json.dumps(content))
    return Cohort.load(path)


def manifest_for(folder: Path, **changes):
    cohort = cohort_in(folder)
    weights = small_cohort.write_random_weights(folder / "tiny.safetensors")
    options = TffsOptions(insertions=1, largest_component=False, threshold=0.05)  # random weights are never sure
    values = {"seed": 3, "device": "cpu", "threads": 1, "scene": False, **changes}
    return ssl_medsam2_manifest(cohort, str(weights), options, TRAINING, **values)


@dataclass(frozen=True)
class TwoRuns:
    """A job that was cancelled when it was about to train the baseline, and was then run again."""

    job: Job
    cancelled: JobState
    first_events: int
    after_first: dict[Path, int]

    @property
    def second_events(self) -> list[dict]:
        return read_events(self.job.events_path)[self.first_events :]


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ssl")
    job = Job.create(folder / "job", manifest_for(folder))

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as during:
        during.setattr(rounds, "train_labelled_only", interrupted)
        cancelled = run_job(job)
    before = len(read_events(job.events_path)), times_of(job)
    assert run_job(job).status == "finished"
    return TwoRuns(job, cancelled, *before)


@pytest.fixture(scope="module")
def finished(two_runs):
    return two_runs.job


def times_of(job: Job) -> dict[Path, int]:
    """When each file below the job's folder was written, without its log."""
    files = [path for path in job.folder.rglob("*") if path.is_file() and path.parent not in (job.folder, job.logs)]
    return {path: path.stat().st_mtime_ns for path in files}


def cohort_of(job: Job) -> Cohort:
    return job.manifest.checked_parameters().loaded_cohort()


def copy_of(job: Job, folder: Path) -> Job:
    shutil.copytree(job.folder, folder / "job")
    return Job.open(folder / "job")


def test_a_job_ends_with_pseudo_labels_rounds_a_baseline_and_predictions(finished):
    assert finished.finished(["c1", "c2"]) == ["c1", "c2"]
    for made in (
        "selftraining/rounds/1/predictions/c1.nii.gz",
        "selftraining/rounds/1/predictions/c2.nii.gz",
        "selftraining/baseline/round.json",
        "predictions/round_1/c3/labels.nii.gz",
        "predictions/baseline/c3/labels.nii.gz",
    ):
        assert (finished.folder / made).is_file(), made
    stages, reports = score_steps(finished, cohort_of(finished))
    assert [(stage.name, stage.group) for stage in stages] == [
        ("pseudo-labels", "unlabelled"),
        ("round 1", "unlabelled"),
        ("round 1", "test"),
        ("labelled only", "test"),
    ]
    assert [report.name for report in reports] == ["round 1"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_on_a_cluster_labels_and_trainings_are_those_of_a_local_run_also_when_a_worker_dies(finished, tmp_path):
    import distributed

    manifest = finished.manifest
    alone = manifest.model_copy(update={"parameters": {**manifest.parameters, "baseline": False, "report": False}})
    job, killed = Job.create(tmp_path / "job", alone), []

    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=None
    ) as cluster:
        job.scheduler = cluster.scheduler_address.replace("tcp", "dask")

        def kill_who_trains():
            with distributed.Client(cluster, set_as_default=False) as watching:
                pids = watching.run(os.getpid)
                while not (training := [w for w, tasks in watching.processing().items() if "train_on" in str(tasks)]):
                    time.sleep(0.02)
                os.kill(pids[training[0]], signal.SIGKILL)
                killed.extend(training)

        killer = threading.Thread(target=kill_who_trains, daemon=True)
        killer.start()
        assert run_job(job).status == "finished"
        killer.join(10)
    assert len(killed) == 1
    for case in ("c1", "c2"):
        for path in sorted(finished.result_folder(case).iterdir()):
            assert (job.result_folder(case) / path.name).read_bytes() == path.read_bytes(), path
        label = Path("selftraining/rounds/1/predictions") / f"{case}.nii.gz"
        assert (job.folder / label).read_bytes() == (finished.folder / label).read_bytes()
    ours, theirs = (
        load_checkpoint(next((each.folder / "selftraining/rounds/1/res").rglob("checkpoint_final.pth")))
        for each in (job, finished)
    )
    weights = theirs["network_weights"]
    assert all(torch.equal(ours["network_weights"][name], weights[name]) for name in weights)


def test_a_device_too_small_for_several_chains_is_got_along_with_as_in_a_pseudo_labelling_job(tmp_path, monkeypatch):
    step = Tracker._step_batch

    def on_a_small_device(self, chains, *rest):  # a fake: the real step on a device too small for more than one
        if self.batch > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return step(self, chains, *rest)

    def up_to_here(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Tracker, "_step_batch", on_a_small_device)
    monkeypatch.setattr(pipelines, "ssl_medsam2", up_to_here)
    job = Job.create(tmp_path / "job", manifest_for(tmp_path, report=False))
    assert run_job(job).status == "cancelled"
    assert job.finished(["c1", "c2"]) == ["c1", "c2"]
    warnings = [event["message"] for event in read_events(job.events_path) if event["event"] == "warning"]
    assert any("ran out; going on with 1 chain at a time" in message for message in warnings)


def test_the_report_is_one_page_with_every_step(finished):
    page = (finished.report / "report.html").read_text(encoding="utf-8")
    assert page.count("<h1>") == 1
    for words in ("Pseudo-labels (TFFS", "Self-training, round 1", "Final model", "trained on the labelled scans only"):
        assert words in page
    assert (finished.report / "rounds.csv").is_file()
    assert (finished.report / "rounds.png").is_file()


def test_a_finished_job_that_is_run_again_writes_nothing(finished):
    before, files = len(read_events(finished.events_path)), times_of(finished)
    assert run_job(finished).status == "finished"
    assert times_of(finished) == files
    assert not any(event["event"] in ("device", "refined") for event in read_events(finished.events_path)[before:])


def test_predictions_of_another_training_and_an_outdated_report_are_made_again(finished, tmp_path):
    job = copy_of(finished, tmp_path)
    result = job.folder / "predictions" / "round_1" / "c3" / "result.json"
    content = json.loads(result.read_text())
    result.write_text(json.dumps({**content, "checkpoints": {"0": "0" * 64}}))
    page = (job.report / "report.html").stat().st_mtime_ns
    assert run_job(job).status == "finished"
    assert json.loads(result.read_text())["checkpoints"] == content["checkpoints"]
    assert (job.report / "report.html").stat().st_mtime_ns != page


def test_a_cancelled_job_is_resumed_where_it_was(two_runs):
    assert two_runs.cancelled.status == "cancelled"
    job, now = two_runs.job, times_of(two_runs.job)
    assert not any(event["event"] == "device" for event in two_runs.second_events)
    kept = {path for path in two_runs.after_first if path.parent != job.report}
    assert any("rounds" in path.parts for path in kept)
    assert any("predictions" in path.parts for path in kept)
    assert {path for path in kept if now.get(path) != two_runs.after_first[path]} == set()


def test_the_manifest_holds_every_number_of_the_training_and_the_test_images(finished):
    manifest = read_manifest(finished.folder / "manifest.json")
    assert manifest.checked_parameters().training.schedule == small_cohort.ONE_ITERATION
    assert manifest.checked_parameters().training.seed == 3
    assert "c3/image_0" in manifest.inputs
    assert not any("reference" in role for role in manifest.inputs)


def test_a_changed_test_image_is_refused_before_any_work(tmp_path):
    manifest = manifest_for(tmp_path)
    job = Job.create(tmp_path / "job", manifest)
    with open(manifest.inputs["c3/image_0"].path, "ab") as file:
        file.write(b"\0")
    with pytest.raises(JobError, match="has other content than when the job was made"):
        run_job(job)
    assert not (job.folder / "results").exists()


def test_a_fingerprint_changes_with_weights_settings_and_the_librarys_source_and_with_nothing_else(
    tmp_path, monkeypatch
):
    manifest = manifest_for(tmp_path)
    name = fingerprint(manifest)
    assert fingerprint(manifest.model_copy(update={"created": "1999-12-31T00:00:00+00:00"})) == name
    assert fingerprint(manifest_for(tmp_path, seed=4)) != name
    small_cohort.write_random_weights(tmp_path / "other.safetensors", seed=1)
    (tmp_path / "other.safetensors").replace(tmp_path / "tiny.safetensors")
    same_path = ssl_medsam2_manifest(
        Cohort.load(tmp_path / "cohort"),
        str(tmp_path / "tiny.safetensors"),
        manifest.checked_parameters().options,
        TRAINING,
        seed=3,
        device="cpu",
        threads=1,
        scene=False,
    )
    assert fingerprint(same_path) != name
    monkeypatch.setattr(fingerprints, "library_digest", lambda: "another line of code")
    assert fingerprint(manifest) != name


def test_algorithm_1_initialises_before_it_trains_and_returns_the_last_round(finished, tmp_path):
    cohort, order = cohort_of(finished), []
    work = copy_of(finished, tmp_path).folder / "selftraining"
    results = {case.id: finished.result_folder(case.id) for case in cohort.unlabelled}

    def hear(event, **fields):
        order.append(event)

    training = finished.manifest.checked_parameters().training.model_copy(update={"devices": ("cpu",)})
    refined = pipelines.ssl_medsam2(cohort, lambda: order.append("f"), results, work, training, progress=hear)
    assert order[0] == "f"
    assert refined.model.path == work.resolve() / "rounds" / "1"
    assert [report.name for report in refined.outcome.rounds] == ["round 1"]
