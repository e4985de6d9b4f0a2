"""Refinement, with written rounds in place of trained ones; test_training.py trains for real."""

import shutil

import numpy as np
import pytest
import slicer
from helpers_module import plot_curves, quiet, segment_masks, texts, write_rounds

from SSLSegLib.cases.reading import read_label_file
from SSLSegLib.jobs.folder import Job
from SSLSegLib.pseudolabels.review import load_review
from SSLSegLib.pseudolabels.storage import read_result

CASES = ("c2", "c3")


@pytest.fixture
def refined(host, finished_job, reviewing):
    write_rounds(finished_job, 2, CASES)
    reviewing.session.run_changed.emit()
    return reviewing


def load(host, panel, row):
    panel.ui.roundsTable.selectRow(row)
    panel.ui.loadRoundButton.click()
    quiet(host, panel)


def first_voxel(case):
    """The class in the first voxel of what a case shows: written rounds have their number there."""
    masks = segment_masks(case.result, case.volume)
    return next((int(name[-1]) for name, mask in masks.items() if mask[0, 0, 0]), 0)


def test_the_history_begins_with_the_pseudo_labels_and_lists_rounds_with_their_agreement(refined):
    rows = texts(refined.ui.roundsTable)
    assert [row[0] for row in rows] == ["Pseudo-labels", "Round 1", "Round 2"]
    assert [row[2] for row in rows] == ["", "0.850", "0.900"]


def test_a_rounds_labels_replace_unreviewed_ones_only(host, refined):
    refined.ui.resultsTable.selectRow(0)
    kept = refined.resultsSection.current()
    refined.ui.acceptButton.click()
    before = segment_masks(kept.result, kept.volume)
    load(host, refined, 2)
    other = next(case for case in refined.session.cases if case.id in CASES and case.id != kept.id)
    assert first_voxel(other) == 2
    after = segment_masks(kept.result, kept.volume)
    assert all(np.array_equal(after[name], before[name]) for name in before)
    assert "now: 1 (Round 2)" in refined.ui.refineStatusLabel.text


def test_the_pseudo_labels_can_be_shown_again(host, refined):
    case = refined.session.cases.find("c2")
    before = segment_masks(case.result, case.volume)
    load(host, refined, 1)
    assert first_voxel(case) == 1
    load(host, refined, 0)
    after = segment_masks(case.result, case.volume)
    assert all(np.array_equal(after[name], before[name]) for name in before)
    assert case.uncertainty is not None


def test_an_accepted_label_of_a_round_is_kept_as_the_label_to_train_on(host, refined, finished_job):
    load(host, refined, 2)
    refined.ui.resultsTable.selectRow(0)
    case = refined.resultsSection.current()
    refined.ui.acceptButton.click()
    quiet(host, refined)
    folder = finished_job / "results" / case.id
    kept = read_label_file(folder / "corrected.nii.gz", read_result(folder).classes)
    assert kept.array[0, 0, 0] == 2
    assert load_review(folder).state == "corrected"


def test_rolling_back_keeps_the_files_and_shows_the_labels_of_the_round_it_goes_back_to(host, refined, finished_job):
    load(host, refined, 2)
    refined.ui.roundsTable.selectRow(1)
    refined.ui.rollBackButton.click()
    quiet(host, refined)
    assert [row[0] for row in texts(refined.ui.roundsTable)] == ["Pseudo-labels", "Round 1"]
    assert len(list((finished_job / "selftraining" / "reverted").iterdir())) == 1
    assert first_voxel(refined.session.cases.find("c2")) == 1


def test_all_rounds_can_be_undone(host, refined, finished_job):
    refined.ui.roundsTable.selectRow(0)
    refined.ui.rollBackButton.click()
    assert refined.ui.roundsTable.rowCount == 0
    assert len(list((finished_job / "selftraining" / "reverted").iterdir())) == 2


def test_the_last_round_has_nothing_after_it_to_undo_and_says_so(refined):
    refined.ui.roundsTable.selectRow(2)
    assert not refined.ui.rollBackButton.enabled
    assert "no later round" in refined.ui.rollBackButton.toolTip


def test_agreement_is_plotted_once_however_often_it_is_asked_for(refined):
    refined.ui.plotButton.click()
    refined.ui.plotButton.click()
    assert len(slicer.util.getNodesByClass("vtkMRMLPlotChartNode")) == 1
    (points,) = plot_curves().values()
    assert points == [(1, pytest.approx(0.85)), (2, pytest.approx(0.9))]


def test_curves_are_means_over_the_folds_at_the_epoch_of_all_rounds(refined):
    from SSLSegPanel.training_plot import curves

    def epoch(round_, fold, number, loss):
        return {"round": f"round {round_}", "fold": fold, "epoch": number, "epochs": 2, "train_loss": loss}

    metrics = [epoch(1, 0, 1, 0.4), epoch(1, 1, 1, 0.6), epoch(1, 0, 2, 0.2)]
    metrics += [{"round": "round 1", "agreement": 0.8}, epoch(2, 0, 1, 0.1)]
    assert curves(metrics) == {
        "Training loss": [(1, pytest.approx(0.5)), (2, 0.2), (3, 0.1)],
        "Agreement with the labels before": [(2, 0.8)],
    }


def test_what_is_trained_before_round_1_is_drawn_left_of_it():
    from SSLSegPanel.training_plot import curves

    before = {"round": "cross-validation", "fold": 0, "epoch": 1, "epochs": 2, "train_loss": 0.9}
    after = {"round": "round 1", "fold": 0, "epoch": 1, "epochs": 2, "train_loss": 0.4}
    assert curves([before, after]) == {"Training loss": [(-1, 0.9), (1, 0.4)]}


def test_refinement_is_described_as_a_job_beside_the_run(refined, finished_job):
    job = refined.logic.prepareRefinement(refined.session.run, preset="quick", rounds=1)
    assert Job.open(job.folder).manifest.kind == "selftraining"
    assert job.folder.parent == finished_job.parent
    assert job.manifest.parameters["job"] == str(finished_job)
    assert refined.logic.prepareRefinement(refined.session.run, preset="quick", rounds=1).folder == job.folder
    shutil.rmtree(job.folder)


def test_other_options_for_a_job_of_that_name_get_a_folder_of_their_own(refined, monkeypatch):
    first = refined.logic.prepareRefinement(refined.session.run, preset="quick", rounds=1)
    monkeypatch.setattr(refined.logic, "_device", lambda: "cpu")
    second = refined.logic.prepareRefinement(refined.session.run, preset="quick", rounds=1)
    assert second.folder != first.folder
    assert second.manifest.parameters["device"] == "cpu"


def test_a_training_with_other_options_lies_beside_the_first_and_is_told_apart(host, refined, finished_job):
    write_rounds(finished_job, 1, CASES, folder="selftraining-2")
    refined.session.run_changed.emit()
    assert [row[0] for row in texts(refined.ui.roundsTable)] == ["Pseudo-labels", "Round 1", "Round 2", "Round 1 (2)"]
    load(host, refined, 3)
    assert refined.session.cases.find("c2").result.GetAttribute("SSLSeg.Round") == "selftraining-2/1"
    assert not refined.ui.rollBackButton.enabled  # the rounds of the other training are not after this one
    refined.ui.roundsTable.selectRow(1)
    refined.ui.rollBackButton.click()
    assert [row[0] for row in texts(refined.ui.roundsTable)] == ["Pseudo-labels", "Round 1", "Round 1 (2)"]


def test_a_finished_run_whose_lock_a_training_holds_is_not_taken_for_running(refined, finished_job):
    from SSLSegPanel.job_run import JobRun

    from SSLSegLib.jobs.lock import JobLock

    with JobLock(finished_job / "lock.json"):
        run = JobRun.open(finished_job)
        assert not run.running
        assert run.progress.ended == "finished"


@pytest.fixture
def whole_run(host, loaded, finished_job):
    """The finished job as one of the whole method, which has gone on to two rounds of training by itself."""
    from SSLSegLib.files import read_json, write_json
    from SSLSegLib.selftraining.options import SelfTrainingOptions

    manifest = read_json(finished_job / "manifest.json")
    manifest["kind"] = "ssl-medsam2"
    manifest["parameters"]["training"] = SelfTrainingOptions.of("quick", devices=("auto",)).model_dump(mode="json")
    manifest["parameters"]["baseline"] = False
    write_json(finished_job / "manifest.json", manifest)
    write_rounds(finished_job, 2, CASES)
    loaded.ui.attachEdit.setCurrentPath(str(finished_job))
    loaded.ui.attachButton.click()
    host.wait_until(lambda: loaded.ui.resultsTable.rowCount == 2 and loaded.runSection.state == "idle", 60)
    quiet(host, loaded)
    return loaded


def test_a_run_of_the_whole_method_shows_its_results_and_rounds(host, whole_run):
    assert [row[0] for row in texts(whole_run.ui.roundsTable)] == ["Pseudo-labels", "Round 1", "Round 2"]
    load(host, whole_run, 2)
    assert first_voxel(whole_run.session.cases.find("c2")) == 2


def test_a_run_of_the_whole_method_can_be_refined_further(host, whole_run, finished_job, monkeypatch):
    from SSLSegPanel.job_run import JobRun

    from SSLSegLib.jobs.kinds import job_kind

    started = []
    monkeypatch.setattr(JobRun, "start", lambda self, **how: started.append((self.job, how)))
    monkeypatch.setattr(JobRun, "poll", lambda self: False)
    assert whole_run.ui.refineButton.enabled, whole_run.ui.refineLabel.text
    whole_run.ui.refineButton.click()
    host.wait_until(lambda: started, 30)
    job, how = started[0]
    assert how == {"detached": True}
    assert job.manifest.parameters["job"] == str(finished_job)
    job_kind("selftraining").preflight(job, lambda *_, **__: None)  # what the child asks first


def test_another_scene_forgets_the_run_and_its_own_brings_run_and_training_back(host, refined, finished_job, tmp_path):
    from SSLSegLib.scene.files import save_scene

    job = refined.logic.prepareRefinement(refined.session.run, preset="quick", rounds=1)
    refined.session.parameters.trainingFolder = str(job.folder)
    job.write_state(job.state().model_copy(update={"status": "finished"}))
    (job.folder / "events.jsonl").touch()
    save_scene(slicer.mrmlScene, tmp_path / "saved.mrb")
    slicer.mrmlScene.Clear(0)
    host.process_events()
    assert refined.session.run is None
    assert refined.ui.roundsTable.rowCount == 0
    assert "starts from a finished run" in refined.ui.refineLabel.text
    slicer.util.loadScene(str(tmp_path / "saved.mrb"))
    quiet(host, refined)
    assert refined.session.run.job.folder == finished_job
    assert refined.ui.roundsTable.rowCount == 3
    assert refined.refineSection.training.job.folder == job.folder
    assert "training has ended" in refined.ui.refineStatusLabel.text


def test_refinement_says_what_it_needs_before_a_run(panel):
    assert not panel.ui.refineButton.enabled
    assert "starts from a finished run" in panel.ui.refineLabel.text
    assert "starts from a finished run" in panel.ui.refineButton.toolTip
    assert not panel.ui.applyModelButton.enabled
    assert "refine by self-training first" in panel.ui.applyModelButton.toolTip
    assert not panel.ui.attachButton.enabled
