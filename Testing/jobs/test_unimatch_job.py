"""A UniMatch v2 job: the same folder, resume, cancel and refusals as any other job."""

import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.cases.reading import read_geometry
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.cases.writing import write_label
from SSLSegLib.errors import CaseError, CohortError, JobError, WeightsError
from SSLSegLib.files import read_json
from SSLSegLib.jobs.events import read_events
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.manifest import read_manifest
from SSLSegLib.jobs.process import start_job
from SSLSegLib.jobs.runner import run_job
from SSLSegLib.jobs.unimatch import unimatch_manifest
from SSLSegLib.pseudolabels.label import build_pseudo_label
from SSLSegLib.pseudolabels.review import CORRECTED_LABEL, save_review
from SSLSegLib.pseudolabels.storage import load_pseudo_label, save_pseudo_label
from SSLSegLib.unimatch.options import PRESETS

_SPECIFICATION = importlib.util.spec_from_file_location("tiny", Path(__file__).parent.parent / "unimatch" / "tiny.py")
tiny = importlib.util.module_from_spec(_SPECIFICATION)
_SPECIFICATION.loader.exec_module(tiny)

CASES = ["c2", "c3", "c4"]


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return tiny.make_cohort(tmp_path_factory.mktemp("cohort"), unlabelled=3)


def make_guide(cohort: Cohort, folder: Path) -> Path:
    """Pseudo-labels as a finished job holds them: the references, less sure."""
    for case in cohort.unlabelled:
        probability = 0.9 * tiny.truth_of(cohort, case)
        label = build_pseudo_label(
            case.id, probability, read_geometry(cohort, case), tiny.CLASSES, largest_component=False
        )
        save_pseudo_label(folder / "results" / case.id, label, tiny.CLASSES)
    return folder


@pytest.fixture(scope="module")
def guide(cohort, tmp_path_factory):
    return make_guide(cohort, tmp_path_factory.mktemp("guide"))


def small_manifest(cohort, guide=None, *, report=False, test_cases=False, **changes):
    changes = {"steps": 4, "guide": "tffs" if guide else "none", **changes}
    options = tiny.tiny_options(**changes)
    return unimatch_manifest(
        cohort,
        options,
        guide_job=guide,
        devices=["cpu"],
        seed=3,
        threads=1,
        test_cases=test_cases,
        report=report,
        scene=False,
    )


@pytest.fixture(scope="module")
def manifest(cohort, guide):
    return small_manifest(cohort, guide, report=True, test_cases=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, manifest):
    job = Job.create(tmp_path_factory.mktemp("finished") / "job", manifest)
    assert run_job(job).status == "finished"
    return job


def contents(job: Job) -> dict[str, bytes]:
    results = job.folder / "results"
    return {path.relative_to(results).as_posix(): path.read_bytes() for path in sorted(results.rglob("*.*"))}


def test_every_case_has_a_sealed_label_dated_like_the_manifest(finished):
    assert finished.finished([*CASES, "c5"]) == [*CASES, "c5"]
    label = load_pseudo_label(finished.result_folder("c3"))
    assert label.provenance["date"] == finished.manifest.created
    assert label.provenance["method"] == "UniMatch v2 + TFFS"
    assert label.provenance["seed"] == 3
    assert finished.state().cases_done == 4
    assert not (finished.folder / "unimatch" / "slices").exists()
    told = {event["event"] for event in read_events(finished.events_path)}
    assert {"started", "device", "stage", "progress", "metric", "cases", "result", "finished"} <= told


def test_the_manifest_names_every_file_that_the_result_depends_on(cohort, guide, tmp_path, manifest):
    from SSLSegLib.files import sha256_of

    roles = set(manifest.inputs)
    assert {"c0/image_0", "c0/label", "c2/image_0", "c5/image_0"} <= roles
    assert {"c2/guide/result.json", "c2/guide/probability_2.nii.gz", "c2/guide/probability_5.nii.gz"} <= roles
    assert not any("reference" in role for role in roles)
    weights = tmp_path / "some.safetensors"
    weights.write_bytes(b"any")
    named = unimatch_manifest(cohort, tiny.tiny_options(guide="sam2"), sam2=str(weights))
    assert named.inputs["sam2"].sha256 == sha256_of(weights)
    encoder = small_manifest(cohort, encoder_weights=str(weights))
    assert encoder.inputs["encoder"].sha256 == sha256_of(weights)
    assert "c2/reference" in small_manifest(cohort, method="upper-bound").inputs


def test_evaluation_and_report_take_the_results(finished, cohort):
    from SSLSegLib.evaluation.folders import evaluate_folder

    assert (finished.report / "report.html").is_file()
    scored = evaluate_folder(finished.folder, cohort.folder / "cohort.json")
    assert sorted(case.case_id for case in scored.cases) == [*CASES, "c5"]


def test_self_training_takes_the_results_as_pseudo_labels(finished, cohort, tmp_path):
    from SSLSegLib.selftraining.dataset import export_dataset, result_folders
    from SSLSegLib.selftraining.folders import WorkFolder

    folders = result_folders(cohort, {case: finished.result_folder(case) for case in CASES})
    assert set(export_dataset(WorkFolder(tmp_path), cohort, folders)) >= {*CASES}


def test_a_finished_job_that_is_run_again_computes_nothing(finished):
    before, events = contents(finished), len(read_events(finished.events_path))
    assert run_job(finished).status == "finished"
    assert contents(finished) == before
    again = [event["event"] for event in read_events(finished.events_path)[events:]]
    assert "device" not in again
    assert "metric" not in again


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_child_killed_while_it_trains_resumes_and_ends_with_the_same_bytes(tmp_path, finished, start_dying):
    job = Job.create(tmp_path / "job", read_manifest(finished.folder / "manifest.json"))
    assert start_dying(job, after="state").wait(300).status == "failed"
    assert (job.folder / "unimatch" / "training" / "state.pt").exists()
    assert not (job.folder / "unimatch" / "model" / "model.json").exists()
    assert start_job(job.folder).wait(300).status == "finished"
    assert contents(job) == contents(finished)


def test_a_job_can_be_cancelled_and_resumed(tmp_path, cohort):
    job = Job.create(tmp_path / "job", small_manifest(cohort, steps=40))
    child = start_job(job.folder)
    deadline = time.monotonic() + 300
    while not any(event["event"] == "metric" for event in read_events(job.events_path)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child.cancel()
    assert job.state().status == "cancelled"
    assert job.finished(CASES) == []
    assert run_job(job).status == "finished"


def test_a_missing_result_is_made_again_from_the_model_without_training(finished, tmp_path):
    import shutil

    job = Job.open(shutil.copytree(finished.folder, tmp_path / "job"))
    shutil.rmtree(job.result_folder("c3"))
    events = len(read_events(job.events_path))
    run_job(job)
    assert contents(job) == contents(finished)
    assert not any(event["event"] == "metric" for event in read_events(job.events_path)[events:])


def test_a_damaged_model_is_made_again_from_the_last_state(finished, tmp_path):
    import shutil

    job = Job.open(shutil.copytree(finished.folder, tmp_path / "job"))
    shutil.rmtree(job.result_folder("c3"))
    with open(job.folder / "unimatch" / "model" / "teacher.safetensors", "ab") as opened:
        opened.write(b"x")
    assert run_job(job).status == "finished"
    assert contents(job) == contents(finished)


@pytest.mark.parametrize("role", ["c2/image_0", "c2/guide/probability_2.nii.gz"])
def test_an_input_that_has_changed_is_refused_before_any_work(tmp_path, role):
    own = tiny.make_cohort(tmp_path / "cohort", unlabelled=2)
    manifest = small_manifest(own, make_guide(own, tmp_path / "guide"))
    job = Job.create(tmp_path / "job", manifest)
    with open(manifest.inputs[role].path, "ab") as file:
        file.write(b"\0")
    with pytest.raises(JobError, match="has other content than when the job was made"):
        run_job(job)
    assert not (job.folder / "unimatch").exists()


def test_rejected_pseudo_labels_are_not_trained_on_and_corrected_ones_count_as_labels(tmp_path):
    own = tiny.make_cohort(tmp_path / "cohort", unlabelled=3)
    source = make_guide(own, tmp_path / "guide")
    plain = small_manifest(own, source)
    save_review(source / "results" / "c2", "rejected")
    geometry = read_geometry(own, own.case("c3"))
    corrected = np.zeros(geometry.shape, np.uint8)
    corrected[:, 3:9, 4:12] = 5
    write_label(
        source / "results" / "c3" / CORRECTED_LABEL, LabelMap(corrected, geometry), own.classes, reference=geometry
    )
    save_review(source / "results" / "c3", "corrected")
    manifest = small_manifest(own, source)
    assert not manifest.same_work(plain)
    assert not any(role.startswith(("c2/guide", "c3/guide")) for role in manifest.inputs)
    assert "c3/correction" in manifest.inputs
    job = Job.create(tmp_path / "job", manifest)
    save_review(source / "results" / "c4", "rejected")  # too late for this job
    run_job(job)
    settings = read_json(job.folder / "unimatch" / "training" / "training.json")
    assert [case for case, *_ in settings["labelled"]] == ["c0", "c1", "c3"]
    assert [case for case, *_ in settings["unlabelled"]] == ["c4"]
    assert job.finished(CASES) == CASES, "all are labelled in the end"
    assert load_pseudo_label(job.result_folder("c2")).provenance["labelled"] == ["c0", "c1", "c3"]


def test_a_corrected_label_is_what_is_trained_on(tmp_path):
    from SSLSegLib.unimatch.decisions import Decisions, reviewed_cohort
    from SSLSegLib.unimatch.slices import StackBuilder

    own = tiny.make_cohort(tmp_path / "cohort", unlabelled=2)
    geometry = read_geometry(own, own.case("c3"))
    corrected = np.zeros(geometry.shape, np.uint8)
    corrected[1, 5:9, 4:12] = 5
    path = tmp_path / "corrected.nii.gz"
    write_label(path, LabelMap(corrected, geometry), own.classes, reference=geometry)
    seen = reviewed_cohort(own, Decisions(frozenset(), {"c3": path}))
    stack = StackBuilder(seen, tmp_path / "slices", 1.0).build([seen.case("c3")])[0]
    assert np.unique(stack.label[1]).tolist() == [0, 2]
    assert not stack.label[0].any()
    assert not stack.label[2:].any()


def test_a_guide_and_its_source_go_together_or_are_refused(cohort, guide, tmp_path):
    with pytest.raises(CohortError, match="needs its pseudo-labels"):
        unimatch_manifest(cohort, tiny.tiny_options(guide="tffs"))
    with pytest.raises(CohortError, match="needs its weights"):
        unimatch_manifest(cohort, tiny.tiny_options(guide="sam2"))
    with pytest.raises(CohortError, match="the guide is 'none'"):
        unimatch_manifest(cohort, tiny.tiny_options(), guide_job=guide)
    with pytest.raises(WeightsError):
        unimatch_manifest(cohort, tiny.tiny_options(guide="sam2"), sam2="no-such-weights")
    with pytest.raises(WeightsError, match="There is no file"):
        unimatch_manifest(cohort, tiny.tiny_options(encoder_weights=str(tmp_path / "none.pth")))
    (tmp_path / "empty" / "results").mkdir(parents=True)
    with pytest.raises(CaseError, match="no whole pseudo-label"):
        unimatch_manifest(cohort, tiny.tiny_options(guide="tffs"), guide_job=tmp_path / "empty")


def test_weights_of_another_kind_end_a_job_before_it_has_written_and_the_folder_takes_the_right_ones(cohort, tmp_path):
    wrong = tmp_path / "wrong.pth"
    wrong.write_text("no weights")
    folder = tmp_path / "job"
    for changes, sam2 in (({"encoder_weights": str(wrong)}, None), ({"guide": "sam2"}, str(wrong))):
        options = tiny.tiny_options(steps=1, **changes)
        job = Job.create(folder, unimatch_manifest(cohort, options, sam2=sam2, devices=["cpu"], scene=False))
        with pytest.raises(WeightsError, match="no file of weights"):
            run_job(job)
        assert not (folder / "unimatch").exists()
    assert run_job(Job.create(folder, small_manifest(cohort, steps=1))).status == "finished"


def test_the_command_makes_a_job_that_run_repeats_elsewhere(cohort, guide, tmp_path, monkeypatch):
    from SSLSegLib.__main__ import app

    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setitem(PRESETS, "quick", tiny.tiny_options(steps=1).model_dump(exclude={"preset"}))

    def call(*arguments):
        return CliRunner().invoke(app, [str(each) for each in arguments])

    job, other = tmp_path / "job", tmp_path / "other"
    asked = ["unimatch", cohort.folder, "--guide", "tffs", "--guide-job", guide, "--device", "cpu", "--threads", 1]
    done = call(*asked, "--out", job, "--no-scene")
    assert done.exit_code == 0, done.output
    assert "Model:" in done.output
    assert Job.open(job).manifest.kind == "unimatch"
    repeated = call("run", job / "manifest.json", "--out", other)
    assert repeated.exit_code == 0, repeated.output
    assert contents(Job.open(other)) == contents(Job.open(job))
    assert call("unimatch", cohort.folder, "--out", job, "--device", "cpu").exit_code == 2, "another job lies there"
    refused = call("unimatch", cohort.folder, "--out", tmp_path / "third", "--size", 33)
    assert refused.exit_code == 2
    assert not (tmp_path / "third").exists()
