import shutil

import numpy as np
import pytest
import slicer
from helpers_module import segment_masks, texts

from SSLSegLib.cases.reading import read_label_file
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.cases.writing import write_label
from SSLSegLib.jobs.folder import Job
from SSLSegLib.pseudolabels.storage import read_result
from SSLSegLib.selftraining.folders import WorkFolder
from SSLSegLib.selftraining.report import RoundReport, write_report

CASES = ("c2", "c3")


def write_rounds(job, count):
    """What rounds of self-training leave, without the training: round N has the label N in its first voxel."""
    work = WorkFolder(job / "selftraining")
    for number in range(1, count + 1):
        target = work.round(number)
        for case in CASES:
            record = read_result(job / "results" / case)
            label = read_label_file(job / "results" / case / "labels.nii.gz", record.classes)
            array = label.array.copy()
            array[0, 0, 0] = number
            path = target.predictions / f"{case}.nii.gz"
            write_label(path, LabelMap(array, record.geometry), record.classes, reference=record.geometry)
        report = RoundReport(
            name=f"round {number}",
            configuration="2d",
            labelled=("c0", "c1"),
            trained=CASES,
            left_out={},
            folds={0: CASES},
            checkpoints={},
            agreement=0.8 + number / 20,
            changes={},
            seconds=10.0,
        )
        write_report(target.report, report)


@pytest.fixture
def refined(host, finished_job, reviewing):
    write_rounds(finished_job, 2)
    reviewing.session.run_changed.emit()
    return reviewing


def test_finished_rounds_are_listed_with_their_agreement(refined):
    assert [row[0] for row in texts(refined.ui.roundsTable)] == ["round 1", "round 2"]
    assert [row[2] for row in texts(refined.ui.roundsTable)] == ["0.850", "0.900"]


def test_a_rounds_labels_replace_unreviewed_ones_only(refined):
    refined.ui.resultsTable.selectRow(0)
    kept = refined.resultsSection.current()
    refined.ui.acceptButton.click()
    before = segment_masks(kept.result, kept.volume)
    refined.ui.roundsTable.selectRow(1)
    refined.ui.loadRoundButton.click()
    other = next(case for case in refined.session.cases if case.id in CASES and case.id != kept.id)
    assert segment_masks(other.result, other.volume)["class 2"][0, 0, 0] == 1
    after = segment_masks(kept.result, kept.volume)
    assert all(np.array_equal(after[name], before[name]) for name in before)
    assert "1 cases" in refined.ui.refineStatusLabel.text


def test_an_accepted_label_of_a_round_is_kept_as_the_label_to_train_on(refined, finished_job):
    refined.ui.roundsTable.selectRow(1)
    refined.ui.loadRoundButton.click()
    refined.ui.resultsTable.selectRow(0)
    case = refined.resultsSection.current()
    refined.ui.acceptButton.click()
    folder = finished_job / "results" / case.id
    kept = read_label_file(folder / "corrected.nii.gz", read_result(folder).classes)
    assert kept.array[0, 0, 0] == 2
    from SSLSegLib.pseudolabels.review import load_review

    assert load_review(folder).state == "corrected"


def test_rolling_back_keeps_the_files_of_the_undone_round(refined, finished_job):
    refined.ui.roundsTable.selectRow(0)
    refined.ui.rollBackButton.click()
    assert [row[0] for row in texts(refined.ui.roundsTable)] == ["round 1"]
    assert len(list((finished_job / "selftraining" / "reverted").iterdir())) == 1


def test_loss_and_agreement_are_plotted_in_the_scene(refined):
    refined.ui.plotButton.click()
    charts = slicer.util.getNodesByClass("vtkMRMLPlotChartNode")
    assert [chart.GetName() for chart in charts] == ["Agreement between rounds"]
    table = slicer.util.getNodesByClass("vtkMRMLTableNode")[0]
    assert table.GetNumberOfRows() == 2


def test_refinement_is_described_as_a_job_beside_the_run(refined, finished_job):
    job = refined.logic.prepareRefinement(refined.session.run, preset="quick", rounds=1)
    assert Job.open(job.folder).manifest.kind == "selftraining"
    assert job.folder.parent == finished_job.parent
    assert job.manifest.parameters["job"] == str(finished_job)
    shutil.rmtree(job.folder)


def test_refinement_says_what_it_needs_before_a_run(panel):
    assert not panel.ui.refineButton.enabled
    assert "starts from a finished run" in panel.ui.refineLabel.text
    assert not panel.ui.applyModelButton.enabled
    assert "refine first" in panel.ui.applyModelButton.toolTip
