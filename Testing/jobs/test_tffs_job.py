import importlib.util
import sys
from pathlib import Path

import pytest

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.errors import JobError, SSLSegError
from SSLSegLib.jobs.events import read_events
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.manifest import Manifest, read_manifest
from SSLSegLib.jobs.process import start_job
from SSLSegLib.jobs.runner import run_job
from SSLSegLib.jobs.tffs import tffs_manifest
from SSLSegLib.pseudolabels.storage import load_pseudo_label
from SSLSegLib.tffs.options import TffsOptions

_SPECIFICATION = importlib.util.spec_from_file_location(
    "small_cohort", Path(__file__).parent.parent / "small_cohort.py"
)
small_cohort = importlib.util.module_from_spec(_SPECIFICATION)
_SPECIFICATION.loader.exec_module(small_cohort)

CASES = ["c1", "c2", "c3"]


def write_manifest_for(folder: Path) -> Manifest:
    path = small_cohort.write_small_cohort(folder / "cohort", labelled=1, unlabelled=3)
    weights = small_cohort.write_random_weights(folder / "tiny.safetensors")
    options = TffsOptions(insertions=2, largest_component=False)
    return tffs_manifest(
        Cohort.load(path), str(weights), options, seed=3, device="cpu", threads=1, report=False, scene=False
    )


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_manifest_for(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, manifest):
    job = Job.create(tmp_path_factory.mktemp("finished") / "job", manifest)
    assert run_job(job).status == "finished"
    return job


def contents(job: Job) -> dict[str, bytes]:
    results = job.folder / "results"
    return {path.relative_to(results).as_posix(): path.read_bytes() for path in sorted(results.rglob("*.*"))}


def test_every_unlabelled_case_has_a_label_that_can_be_read_back(finished):
    assert finished.finished(CASES) == CASES
    label = load_pseudo_label(finished.result_folder("c2"))
    assert label.probability.shape == (2, 5, 40, 36)
    assert label.provenance["seed"] == 3
    assert not (finished.folder / "scratch").exists()


def test_each_slice_was_encoded_once_for_each_class_whose_region_is_shown(finished):
    counts = [event for event in read_events(finished.events_path) if "encoded" in event and event["event"] == "metric"]
    assert counts[-1]["encoded"] == 2 * 4 * 5  # classes, cases, slices


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_child_resumes_without_redoing_cases_and_ends_with_the_same_bytes(tmp_path, finished, start_dying):
    job = Job.create(tmp_path / "job", read_manifest(finished.folder / "manifest.json"))
    assert start_dying(job, after="result").wait(300).status == "failed"
    assert "SIGKILL" in job.state().message
    kept = job.finished(CASES)
    assert kept == ["c1"]
    before = {case: (job.result_folder(case) / "result.json").stat().st_mtime_ns for case in kept}
    assert start_job(job.folder).wait(300).status == "finished"
    assert {case: (job.result_folder(case) / "result.json").stat().st_mtime_ns for case in kept} == before
    assert contents(job) == contents(finished)


def test_a_finished_job_that_is_run_again_computes_nothing(finished):
    before = contents(finished)
    events = len(read_events(finished.events_path))
    assert run_job(finished).status == "finished"
    assert contents(finished) == before
    assert not any(event["event"] == "device" for event in read_events(finished.events_path)[events:])


@pytest.mark.parametrize("role", ["c2/image_0", "weights"])
def test_an_input_that_has_changed_is_refused_before_any_work(tmp_path, role):
    manifest = write_manifest_for(tmp_path)
    job = Job.create(tmp_path / "job", manifest)
    with open(manifest.inputs[role].path, "ab") as file:
        file.write(b"\0")
    with pytest.raises(JobError, match="has other content than when the job was made"):
        run_job(job)
    assert not (job.folder / "results").exists()
    assert job.state().status == "failed"


def test_a_manifest_cannot_smuggle_in_parameters_that_do_not_exist(tmp_path, manifest):
    smuggled = manifest.model_copy(update={"parameters": {**manifest.parameters, "code": "import os"}})
    with pytest.raises(JobError, match="code"):
        Job.create(tmp_path / "job", smuggled)


def test_missing_weights_are_said_before_a_job_is_made(tmp_path):
    cohort = Cohort.load(small_cohort.write_small_cohort(tmp_path / "cohort"))
    with pytest.raises(SSLSegError):
        tffs_manifest(cohort, "no-such-weights", TffsOptions())
