"""What a self-training begins with, in section 5: the choice, and the labels that came of it."""

import json
import shutil

import numpy as np
import pytest
from helpers_module import quiet, segment_masks, texts, write_first_labels, write_rounds

from SSLSegLib.jobs.folder import Job
from SSLSegLib.selftraining.options import SelfTrainingOptions

CASES = ("c2", "c3")
BEST, GIVEN = 0, 1


def rows(panel):
    return [row[:2] for row in texts(panel.ui.roundsTable)]


def load(host, panel, row):
    panel.ui.roundsTable.selectRow(row)
    panel.ui.loadRoundButton.click()
    quiet(host, panel)


def masks(panel, case="c2"):
    found = panel.session.cases.find(case)
    return segment_masks(found.result, found.volume)


def same(one, other):
    return all(np.array_equal(one[name], other[name]) for name in other)


@pytest.fixture
def chosen(host, finished_job, reviewing):
    """A run with a training that began with the mean of one class, and has finished two rounds."""
    write_first_labels(finished_job, CASES, (0.5, 0.0))
    write_rounds(finished_job, 2, CASES)
    reviewing.session.run_changed.emit()
    return reviewing


def test_each_preset_begins_with_what_it_begins_with_on_the_command_line(panel):
    for index, preset in enumerate(("quick", "standard", "paper")):
        panel.ui.refinePresetBox.setCurrentIndex(index)
        expected = SelfTrainingOptions.of(preset).first_labels
        assert panel.ui.firstLabelsBox.currentIndex == {"best": BEST, "given": GIVEN}[expected]
    assert "three labelled cases" in panel.ui.firstLabelsBox.toolTip


def test_the_choice_is_shown_for_self_training_only(panel):
    assert not panel.ui.firstLabelsBox.isHidden()
    panel.ui.refineMethodBox.setCurrentIndex(1)
    assert panel.ui.firstLabelsBox.isHidden()
    assert panel.ui.firstLabelsLabel.isHidden()


@pytest.mark.parametrize(("choice", "written"), [(BEST, None), (GIVEN, "given")])
def test_a_click_asks_for_the_chosen_first_labels(host, reviewing, monkeypatch, choice, written):
    from SSLSegPanel.job_run import JobRun

    started = []
    monkeypatch.setattr(JobRun, "start", lambda self, **how: started.append(self.job))
    monkeypatch.setattr(JobRun, "poll", lambda self: False)
    reviewing.ui.firstLabelsBox.setCurrentIndex(choice)
    reviewing.ui.refineButton.click()
    host.wait_until(lambda: started, 30)
    parameters = started[0].manifest.checked_parameters()
    assert parameters.first_labels == written
    assert parameters.options(42).first_labels == ("best" if choice == BEST else "given")


def test_a_training_begun_without_the_choice_is_gone_on_with(reviewing):
    run = reviewing.session.run
    before = reviewing.logic.prepareRefinement(run, preset="quick", rounds=1)
    again = reviewing.logic.prepareRefinement(run, preset="quick", rounds=1, first_labels="best")
    other = reviewing.logic.prepareRefinement(run, preset="quick", rounds=1, first_labels="given")
    assert again.folder == before.folder != other.folder
    assert Job.open(other.folder).manifest.parameters["first_labels"] == "given"


def test_with_one_labelled_case_there_is_no_choice_and_the_box_says_why(host, loaded, finished_job):
    path = finished_job / "manifest.json"
    manifest = json.loads(path.read_text())
    cohort = manifest["parameters"]["cohort"]
    cohort["cases"] = [case for case in cohort["cases"] if case["id"] != "c1"]
    path.write_text(json.dumps(manifest))
    loaded.ui.attachEdit.setCurrentPath(str(finished_job))
    loaded.ui.attachButton.click()
    host.wait_until(lambda: loaded.ui.resultsTable.rowCount == 2, 60)
    quiet(host, loaded)
    assert not loaded.ui.firstLabelsBox.enabled
    assert "one labelled case" in loaded.ui.firstLabelsBox.toolTip


def test_a_run_of_vessa_gives_its_labels_as_they_are(reviewing):
    job = reviewing.session.run.job
    assert reviewing.ui.firstLabelsBox.enabled
    job.manifest = job.manifest.model_copy(update={"kind": "vessa"})
    reviewing.session.run_changed.emit()
    assert not reviewing.ui.firstLabelsBox.enabled
    assert "VESSA" in reviewing.ui.firstLabelsBox.toolTip


def test_the_first_labels_are_listed_with_what_they_were_made_from_and_why(chosen):
    assert rows(chosen)[1] == ["First labels", "class 1: mean of both, class 2: pseudo-labels"]
    assert [row[0] for row in rows(chosen)] == ["Pseudo-labels", "First labels", "Round 1", "Round 2"]
    assert "mean 0.800" in chosen.ui.roundsTable.item(1, 1).toolTip()


def test_first_labels_are_listed_before_a_round_is_finished(reviewing, finished_job):
    write_first_labels(finished_job, CASES, (1.0, 1.0))
    reviewing.session.run_changed.emit()
    assert rows(reviewing) == [["Pseudo-labels", ""], ["First labels", "networks"]]


def test_first_labels_are_shown_in_place_of_unreviewed_ones(host, chosen):
    load(host, chosen, 1)
    case = chosen.session.cases.find("c2")
    assert masks(chosen)["class 2"][0, 0, 0]
    assert case.result.GetName().endswith("first labels")
    assert case.result.GetAttribute("SSLSeg.Method") == "FSL-nnUNet, first labels"
    assert "now: 2 (First labels)" in chosen.ui.refineStatusLabel.text


def test_first_labels_that_are_the_pseudo_labels_show_those(host, reviewing, finished_job):
    write_first_labels(finished_job, CASES, (0.0, 0.0))
    write_rounds(finished_job, 1, CASES)
    reviewing.session.run_changed.emit()
    assert rows(reviewing)[1] == ["First labels", "pseudo-labels"]
    before = masks(reviewing)
    load(host, reviewing, 2)
    assert not same(masks(reviewing), before)
    load(host, reviewing, 1)
    assert same(masks(reviewing), before)


def test_going_back_to_the_first_labels_undoes_the_rounds_and_shows_them(host, chosen, finished_job):
    load(host, chosen, 2)
    assert masks(chosen)["class 1"][0, 0, 0]
    chosen.ui.roundsTable.selectRow(1)
    chosen.ui.rollBackButton.click()
    quiet(host, chosen)
    assert [row[0] for row in rows(chosen)] == ["Pseudo-labels", "First labels"]
    assert masks(chosen)["class 2"][0, 0, 0]
    assert len(list((finished_job / "selftraining" / "reverted").iterdir())) == 2


def test_going_back_to_the_first_labels_of_one_training_leaves_another_alone(host, chosen, finished_job):
    write_rounds(finished_job, 1, CASES, folder="selftraining-2")
    chosen.session.run_changed.emit()
    chosen.ui.roundsTable.selectRow(1)
    chosen.ui.rollBackButton.click()
    quiet(host, chosen)
    assert [row[0] for row in rows(chosen)] == ["Pseudo-labels", "First labels", "Round 1 (2)"]


def test_shown_first_labels_survive_going_back_to_the_pseudo_labels(host, chosen):
    load(host, chosen, 1)
    chosen.ui.roundsTable.selectRow(0)
    chosen.ui.rollBackButton.click()
    quiet(host, chosen)
    assert masks(chosen)["class 2"][0, 0, 0]  # they are no round, and still there


def test_chosen_first_labels_that_are_not_written_yet_cannot_be_loaded(reviewing, finished_job):
    write_first_labels(finished_job, (), (0.5, 0.5))
    reviewing.session.run_changed.emit()
    reviewing.ui.roundsTable.selectRow(1)
    assert not reviewing.ui.loadRoundButton.enabled
    assert "not written yet" in reviewing.ui.loadRoundButton.toolTip


def test_the_list_follows_the_choice_of_a_running_training(host, reviewing, finished_job, monkeypatch):
    from SSLSegPanel.job_run import JobRun

    training = JobRun(reviewing.logic.prepareRefinement(reviewing.session.run, preset="quick", rounds=1))
    monkeypatch.setattr(JobRun, "running", property(lambda self: self is training))
    monkeypatch.setattr(JobRun, "poll", lambda self: True)
    reviewing.refineSection.watch(training)
    assert rows(reviewing) == []
    write_first_labels(finished_job, CASES, (0.5, 0.5))
    reviewing.refineSection._look()
    assert rows(reviewing)[1] == ["First labels", "mean of both"]
    shutil.rmtree(finished_job / "selftraining" / "first")
    reviewing.refineSection._timer.stop()


def test_a_damaged_choice_says_so_and_leaves_the_rounds_usable(host, chosen, finished_job):
    (finished_job / "selftraining" / "first" / "choice.json").write_text("{")
    chosen.session.run_changed.emit()
    chosen.ui.roundsTable.selectRow(1)
    assert not chosen.ui.loadRoundButton.enabled
    assert "is damaged" in chosen.ui.loadRoundButton.toolTip
    load(host, chosen, 3)
    assert masks(chosen)["class 2"][0, 0, 0]
