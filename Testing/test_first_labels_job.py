"""The choice of first labels in a job: real SAM2 (random weights), real nnU-Net (a few iterations)."""

import importlib.util
import json
from pathlib import Path

import pytest

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.jobs.events import read_events
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.runner import run_job
from SSLSegLib.jobs.ssl_medsam2 import first_label_sentences, score_steps, ssl_medsam2_manifest
from SSLSegLib.pseudolabels.storage import is_complete, read_result
from SSLSegLib.selftraining import first_labels
from SSLSegLib.selftraining.choice import read_choice
from SSLSegLib.selftraining.folders import WorkFolder
from SSLSegLib.tffs.options import TffsOptions

_SPECIFICATION = importlib.util.spec_from_file_location("small_cohort", Path(__file__).with_name("small_cohort.py"))
small_cohort = importlib.util.module_from_spec(_SPECIFICATION)
_SPECIFICATION.loader.exec_module(small_cohort)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """Two labelled cases; the networks are taken, whatever they are worth."""
    folder = tmp_path_factory.mktemp("choice")
    path = small_cohort.write_small_cohort(folder / "cohort", labelled=2, unlabelled=2, classes=1)
    cohort = Cohort.load(path)
    weights = small_cohort.write_random_weights(folder / "tiny.safetensors")
    options = TffsOptions(insertions=1, largest_component=False, threshold=0.05)
    training = small_cohort.tiny_training(devices=("cpu",))
    settings = {"seed": 3, "device": "cpu", "threads": 1, "scene": False, "baseline": False}
    job = Job.create(folder / "job", ssl_medsam2_manifest(cohort, str(weights), options, training, **settings))
    with pytest.MonkeyPatch.context() as during:
        during.setattr(first_labels, "_best", lambda dice: "networks")
        assert run_job(job).status == "finished"
    return job


def test_labelled_cases_are_segmented_from_the_others_by_the_jobs_own_method(job):
    for case, other in (("c0", "c1"), ("c1", "c0")):
        assert is_complete(job.folder / "left-out" / case)
        assert read_result(job.folder / "left-out" / case).provenance["labelled"] == [other]
    assert job.finished(["c0", "c1", "c2", "c3"]) == ["c2", "c3"], "a labelled case is no result"
    assert {event["case"] for event in read_events(job.events_path) if event["event"] == "result"} == {"c2", "c3"}


def test_report_and_terminal_say_what_was_chosen_and_what_it_was_worth(job):
    choice = read_choice(WorkFolder(job.folder / "selftraining").choice)
    assert choice is not None
    assert list(choice.means()) == list(choice.parts)
    assert [list(cases) for cases in choice.dice[next(iter(choice.parts))].values()] == [["c0", "c1"]] * 3
    (sentence,) = first_label_sentences(job)
    assert "2 labelled scans" in sentence
    page = (job.report / "report.html").read_text(encoding="utf-8")
    assert sentence.split(":")[0].replace("'", "&#39;") in page
    stages, _ = score_steps(job, job.manifest.checked_parameters().loaded_cohort())
    names = [stage.name for stage in stages]
    assert names == ["pseudo-labels", *([] if choice.given else ["first labels"]), "round 1"]
    assert not choice.given, "nothing was chosen, so nothing of it was tested"
    assert "First labels of the training" in page


def test_run_again_it_changes_nothing(job):
    made = [*(job.folder / "left-out").rglob("*"), *(job.folder / "selftraining").rglob("*.nii.gz")]
    before = {path: path.stat().st_mtime_ns for path in made if path.is_file()}
    chosen = json.loads((job.folder / "selftraining" / "first" / "choice.json").read_text())
    assert run_job(job).status == "finished"
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert json.loads((job.folder / "selftraining" / "first" / "choice.json").read_text()) == chosen
