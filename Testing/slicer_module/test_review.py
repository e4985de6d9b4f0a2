import json
from pathlib import Path

import numpy as np
import pytest
import slicer
from helpers_module import block, draw, quiet, results_of, segment_masks, texts

from SSLSegLib.pseudolabels.review import load_review
from SSLSegLib.scene.files import save_scene

MODULE = Path(__file__).resolve().parents[2] / "SSLSeg" / "SSLSeg.py"


def first_case(panel):
    panel.ui.resultsTable.selectRow(0)
    return panel.resultsSection.current()


def statuses(node):
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    segmentation = node.GetSegmentation()
    return {logic.GetSegmentStatus(segmentation.GetNthSegment(i)) for i in range(segmentation.GetNumberOfSegments())}


def test_results_stand_in_the_order_in_which_to_look_at_them(reviewing):
    certainty = [float(row[1]) for row in texts(reviewing.ui.resultsTable)]
    assert certainty == sorted(certainty)
    assert 0 < certainty[0] <= 1
    assert "class 2" in reviewing.ui.resultsTable.item(0, 1).toolTip()


def test_a_click_on_a_result_shows_its_scan_and_uncertainty_and_jumps_to_the_worst_slice(host, reviewing):
    case = first_case(reviewing)
    composite = slicer.app.layoutManager().sliceWidget("Red").sliceLogic().GetSliceCompositeNode()
    assert composite.GetBackgroundVolumeID() == case.volume.GetID()
    assert composite.GetForegroundVolumeID() == case.uncertainty.GetID()
    assert composite.GetForegroundOpacity() == pytest.approx(0.4)
    assert case.result.GetDisplayNode().GetVisibility()
    assert case.uncertainty.GetDisplayNode().GetLowerThreshold() == pytest.approx(0.15)
    worst = slicer.util.arrayFromVolume(case.uncertainty).sum(axis=(1, 2)).argmax()
    offset = slicer.app.layoutManager().sliceWidget("Red").mrmlSliceNode().GetSliceOffset()
    assert offset == pytest.approx(worst * case.volume.GetSpacing()[2], abs=0.01)


def test_next_uncertain_slice_goes_from_worse_to_better_and_stops_at_the_end(reviewing):
    first_case(reviewing)
    section = reviewing.resultsSection
    positions = []
    for _ in range(len(section._slices) + 2):
        positions.append(section._position)
        reviewing.ui.nextSliceButton.click()
    assert positions[0] == 0
    assert section._position == len(section._slices) - 1
    reviewing.ui.previousSliceButton.click()
    assert section._position == max(len(section._slices) - 2, 0)


def test_accept_is_kept_on_the_node_in_the_folder_and_goes_to_the_next_case(reviewing, finished_job):
    case = first_case(reviewing)
    reviewing.ui.acceptButton.click()
    assert statuses(case.result) == {slicer.vtkSlicerSegmentationsModuleLogic.Completed}
    assert load_review(finished_job / "results" / case.id).state == "accepted"
    assert reviewing.resultsSection.current().id != case.id
    reviewing.ui.rejectButton.click()
    assert load_review(finished_job / "results" / reviewing.resultsSection.current().id).state == "rejected"
    assert "All results are reviewed" in reviewing.ui.statusLabel.text


def test_a_correction_is_written_beside_the_pseudo_label_which_stays_as_it_was(host, reviewing, finished_job):
    case = first_case(reviewing)
    before = results_of(finished_job)[case.id]
    reviewing.ui.correctButton.click()
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    assert editor.segmentationNode() is case.result
    assert statuses(case.result) == {slicer.vtkSlicerSegmentationsModuleLogic.InProgress}
    mask = np.zeros_like(before)
    mask[2, 3:9, 4:8] = 1
    segmentation = case.result.GetSegmentation()
    for name in ("class 1", "class 2"):
        identifier = segmentation.GetSegmentIdBySegmentName(name)
        drawn = mask if name == "class 1" else np.zeros_like(mask)
        slicer.util.updateSegmentBinaryLabelmapFromArray(drawn, case.result, identifier, case.volume)
    host.show_module("SSLSeg")
    reviewing.resultsSection._current = case.id
    reviewing.resultsSection.refresh()
    assert reviewing.ui.correctButton.text == "Keep correction"
    reviewing.ui.correctButton.click()
    quiet(host, reviewing)
    from SSLSegLib.cases.reading import read_image

    kept = read_image(finished_job / "results" / case.id / "corrected.nii.gz").array[0]
    assert np.array_equal(kept, mask)
    assert np.array_equal(results_of(finished_job)[case.id], before)
    assert load_review(finished_job / "results" / case.id).state == "corrected"


@pytest.mark.parametrize("decided", [False, True])
def test_drawing_without_a_click_on_correct_is_a_correction_that_is_not_lost(host, reviewing, finished_job, decided):
    from SSLSegPanel.prepare import finish
    from SSLSegPanel.publish import publish_result

    from SSLSegLib.cases.reading import read_image

    case = first_case(reviewing)
    if decided:
        reviewing.ui.acceptButton.click()
    drawn = block(case, 3, 8)
    draw(case, "class 1", drawn)
    draw(case, "class 2", np.zeros_like(drawn))
    host.process_events()
    reviewing.resultsSection.show(case)
    assert "Being corrected" in [row[3] for row in texts(reviewing.ui.resultsTable)]
    assert statuses(case.result) == {slicer.vtkSlicerSegmentationsModuleLogic.InProgress}
    assert not reviewing.ui.acceptButton.enabled  # it would speak of the method's own label
    assert reviewing.ui.revertButton.enabled
    assert not reviewing.ui.refineButton.enabled
    assert f"correction of {case.name}" in reviewing.ui.refineButton.toolTip
    reviewing.ui.correctButton.click()
    quiet(host, reviewing)
    folder = finished_job / "results" / case.id
    assert load_review(folder).state == "corrected"
    assert np.array_equal(read_image(folder / "corrected.nii.gz").array[0], drawn)
    assert reviewing.ui.refineButton.enabled
    draw(case, "class 1", block(case, 4, 9))
    mine = case.result
    finish(publish_result(case, folder))  # as the results of another run do
    assert mine.GetScene() is not None
    assert np.array_equal(segment_masks(mine, case.volume)["class 1"], block(case, 4, 9))


def test_what_is_not_drawn_is_no_correction(host, reviewing, tmp_path):
    case = first_case(reviewing)
    segment = case.result.GetSegmentation().GetNthSegment(0)
    segment.SetName("renamed")
    segment.SetColor(0.1, 0.2, 0.3)
    slicer.vtkSlicerSegmentationsModuleLogic.SetSegmentStatus(segment, 1)
    case.result.CreateClosedSurfaceRepresentation()
    segment_masks(case.result, case.volume)
    save_scene(slicer.mrmlScene, tmp_path / "saved.mrb")
    host.process_events()
    assert [row[3] for row in texts(reviewing.ui.resultsTable)] == ["To review", "To review"]
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "saved.mrb"))
    host.wait_until(lambda: reviewing.ui.resultsTable.rowCount == 2)
    assert [row[3] for row in texts(reviewing.ui.resultsTable)] == ["To review", "To review"]
    again = first_case(reviewing)
    draw(again, "class 2", block(again, 3, 8))
    host.process_events()
    assert sorted(row[3] for row in texts(reviewing.ui.resultsTable)) == ["Being corrected", "To review"]


def test_revert_puts_the_pseudo_label_and_the_open_decision_back(host, reviewing, finished_job, monkeypatch):
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda *_: True)
    case = first_case(reviewing)
    before = {name: mask.copy() for name, mask in segment_masks(case.result, case.volume).items()}
    reviewing.ui.rejectButton.click()
    draw(case, "class 1", 1 - before["class 1"])
    reviewing.resultsSection.show(case)
    reviewing.ui.revertButton.click()
    quiet(host, reviewing)
    after = segment_masks(case.result, case.volume)
    assert all(np.array_equal(after[name], before[name]) for name in before)
    assert load_review(finished_job / "results" / case.id).state == "unreviewed"


def test_what_was_drawn_is_thrown_away_after_a_yes_only(host, reviewing, finished_job, monkeypatch):
    asked = []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, *_: asked.append(text))  # None: no
    case = first_case(reviewing)
    drawn, node = block(case, 3, 8), case.result
    draw(case, "class 1", drawn)
    draw(case, "class 2", np.zeros_like(drawn))
    host.process_events()
    reviewing.ui.revertButton.click()
    quiet(host, reviewing)
    assert case.name in asked[0]
    assert "lost" in asked[0]
    assert case.result is node
    assert np.array_equal(segment_masks(node, case.volume)["class 1"], drawn)
    reviewing.ui.correctButton.click()  # keeps it
    quiet(host, reviewing)
    assert load_review(finished_job / "results" / case.id).state == "corrected"
    reviewing.resultsSection.show(case)
    reviewing.ui.revertButton.click()
    assert len(asked) == 2
    other = next(each for each in reviewing.session.cases if each.result and each.id != case.id)
    reviewing.resultsSection.show(other)
    reviewing.ui.rejectButton.click()
    reviewing.resultsSection.show(other)
    reviewing.ui.revertButton.click()  # only the decision is undone
    quiet(host, reviewing)
    assert len(asked) == 2


def test_reviewed_cases_become_labelled_cases_of_the_next_run(host, reviewing):
    case = first_case(reviewing)
    assert not reviewing.ui.promoteButton.enabled
    assert "eviewed" not in reviewing.ui.estimateLabel.text
    reviewing.ui.acceptButton.click()
    quiet(host, reviewing)
    assert "Reviewed cases (1) are segmented anew" in reviewing.ui.estimateLabel.text
    reviewing.ui.promoteButton.click()
    assert "eviewed" not in reviewing.ui.estimateLabel.text
    assert case.role == "labelled"
    assert case.segmentation is case.result


def test_results_and_decisions_come_back_with_a_saved_scene(host, reviewing, tmp_path):
    case = first_case(reviewing)
    before = segment_masks(case.result, case.volume)
    reviewing.ui.acceptButton.click()
    save_scene(slicer.mrmlScene, tmp_path / "saved.mrb")
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "saved.mrb"))
    host.wait_until(lambda: reviewing.ui.resultsTable.rowCount == 2)
    again = reviewing.session.cases.find(case.id)
    after = segment_masks(again.result, again.volume)
    assert all(np.array_equal(after[name], before[name]) for name in before)
    assert sorted(row[3] for row in texts(reviewing.ui.resultsTable)) == ["Accepted", "To review"]


def test_a_loaded_scene_knows_the_run_that_its_results_come_from(host, reviewing, finished_job, tmp_path):
    save_scene(slicer.mrmlScene, tmp_path / "saved.mrb")
    host.unload_module("SSLSeg")
    slicer.mrmlScene.Clear(0)
    panel = host.load_module(MODULE)
    assert panel.session.run is None
    slicer.util.loadScene(str(tmp_path / "saved.mrb"))
    host.wait_until(lambda: panel.session.run is not None)
    assert panel.session.run.job.folder == finished_job
    assert panel.ui.refineButton.enabled


def test_decisions_come_back_from_the_folder_when_a_job_is_attached_in_an_empty_scene(host, panel, finished_job):
    from SSLSegLib.pseudolabels.review import save_review

    save_review(finished_job / "results" / "c2", "accepted")
    panel.ui.attachEdit.setCurrentPath(str(finished_job))
    panel.ui.attachButton.click()
    host.wait_until(lambda: panel.ui.resultsTable.rowCount == 2, 60)
    assert sorted((row[0], row[3]) for row in texts(panel.ui.resultsTable)) == [
        ("c2", "Accepted"),
        ("c3", "To review"),
    ]
    assert panel.ui.casesTable.rowCount == 4


def test_a_damaged_result_is_refused_and_the_others_are_shown(host, loaded, finished_job, monkeypatch):
    said = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: said.append(text))
    record = finished_job / "results" / "c2" / "result.json"
    content = json.loads(record.read_text())
    content["shape"] = [1, 1, 1]
    record.write_text(json.dumps(content))
    loaded.ui.attachEdit.setCurrentPath(str(finished_job))
    loaded.ui.attachButton.click()
    host.wait_until(lambda: said, 60)
    host.wait_until(lambda: loaded.ui.resultsTable.rowCount == 1, 60)
    assert loaded.session.cases.find("c2").result is None
    assert loaded.session.cases.find("c3").result is not None


def test_show_3d_makes_a_surface_of_the_case(host, reviewing):
    case = first_case(reviewing)
    reviewing.ui.show3DButton.click()
    quiet(host, reviewing)
    name = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    assert case.result.GetSegmentation().ContainsRepresentation(name)
    assert case.result.GetDisplayNode().GetVisibility3D()


def test_review_goes_on_when_the_job_folder_is_gone(reviewing, finished_job):
    import shutil

    shutil.rmtree(finished_job)
    reviewing.refresh()
    case = first_case(reviewing)
    reviewing.ui.acceptButton.click()
    assert case.result.GetAttribute("SSLSeg.Review") == "accepted"


@pytest.mark.parametrize("pauses", [1, 2])
def test_a_volume_that_is_deleted_while_its_result_is_shown_leaves_no_half_result(reviewing, finished_job, pauses):
    from SSLSegPanel.prepare import finish
    from SSLSegPanel.publish import publish_result, withdraw_result

    from SSLSegLib.errors import CaseError

    case = reviewing.session.cases.find("c2")
    withdraw_result(case)
    steps = publish_result(case, finished_job / "results" / "c2")
    while pauses:
        pauses -= next(steps) is None  # the others wait for the files
    slicer.mrmlScene.RemoveNode(case.volume)
    with pytest.raises(CaseError, match="deleted while"):
        finish(steps)
    names = [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode")]
    assert "c2 pseudo-label" not in names
    assert not slicer.util.getNodes("c2 uncertainty*")
