import errno
import os
import signal
import sys
import time

import numpy as np
import pytest
import slicer
from helpers_module import beating, longest_step, results_of, segment_masks, texts

from SSLSegLib.cases.reading import read_label
from SSLSegLib.errors import CaseError


def user_state(panel):
    """Everything of the user's that a run must not touch."""
    cases = [case for case in panel.session.cases if case.segmentation]
    return [
        (case.segmentation.GetName(), name, mask.tobytes())
        for case in cases
        for name, mask in segment_masks(case.segmentation, case.volume).items()
    ]


def test_a_click_segments_the_unlabelled_cases_as_batch_does_and_touches_nothing_of_the_users(host, loaded, batch_job):
    before = user_state(loaded)
    shown_while_running = set()

    def ended():
        run = loaded.session.run
        if run is not None and run.running:
            shown_while_running.add(loaded.ui.resultsTable.rowCount)
        return loaded.runSection.state == "idle"

    with beating(time.thread_time) as beats:
        loaded.ui.applyButton.click()
        assert loaded.ui.applyButton.text == "Cancel"
        host.wait_until(ended, 300)
    assert shown_while_running >= {0, 1}  # case by case
    # The GUI thread's own work between two beats; on a busy machine wall time would count other processes' work.
    assert longest_step(beats) < 0.1
    assert "Finished" in loaded.ui.statusLabel.text
    assert sorted(row[0] for row in texts(loaded.ui.resultsTable)) == ["c2", "c3"]
    expected = results_of(batch_job)
    for case_id in ("c2", "c3"):
        case = loaded.session.cases.find(case_id)
        shown = segment_masks(case.result, case.volume)
        merged = shown["class 1"] * 1 + shown["class 2"] * 2
        assert np.array_equal(merged, expected[case_id]), case_id
        assert case.result.GetAttribute("SSLSeg.Kind") == "pseudo-label"
        assert case.uncertainty is not None
    assert user_state(loaded) == before


def test_the_console_gives_the_voxels_of_batch(loaded, inputs, batch_job):
    cases = loaded.session.cases
    labelled = {cases.find(name).volume: cases.find(name).segmentation for name in ("c0", "c1")}
    unlabelled = [cases.find("c2").volume, cases.find("c3").volume]
    nodes = loaded.logic.process(labelled, unlabelled, weights=str(inputs.weights), report=False)
    assert sorted(nodes) == ["c2", "c3"]
    expected = results_of(batch_job)
    for case_id, node in nodes.items():
        shown = segment_masks(node, cases.find(case_id).volume)
        assert np.array_equal(shown["class 1"] * 1 + shown["class 2"] * 2, expected[case_id])


def wait_for_worker(host, panel):
    host.wait_until(lambda: panel.runSection.state == "running" and panel.session.run._pid(), 60)
    host.wait_until(lambda: panel.session.run.progress.stage != "Starting", 120)
    return panel.session.run._pid()


def is_alive(pid):
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(("index", "preset", "place"), [(0, 1, None), (0, 2, False), (1, 2, True), (2, 1, False)])
def test_the_place_control_says_whether_the_place_of_a_class_counts(loaded, tmp_path, index, preset, place):
    """None leaves it to the weights; the preset paper leaves place out unless it is asked for."""
    from SSLSegPanel.prepare import RunChoices, finish, prepare_steps

    loaded.ui.presetBox.setCurrentIndex(preset)
    loaded.ui.placeBox.setCurrentIndex(index)
    choices = RunChoices.from_parameters(loaded.session.parameters)
    job = finish(prepare_steps(list(loaded.session.cases), choices, tmp_path / "run"))
    assert job.manifest.parameters["options"]["place"] is place


def test_cancel_ends_the_child_and_the_panel_can_start_again(host, loaded):
    loaded.ui.applyButton.click()
    pid = wait_for_worker(host, loaded)
    loaded.ui.applyButton.click()
    host.wait_until(lambda: loaded.runSection.state == "idle", 60)
    assert not is_alive(pid)
    assert "Cancelled" in loaded.ui.statusLabel.text
    assert loaded.ui.applyButton.enabled
    assert loaded.ui.applyButton.text == "Segment the unlabelled cases"


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_child_that_is_killed_is_told_and_the_panel_stays_usable(host, loaded):
    loaded.ui.applyButton.click()
    os.kill(wait_for_worker(host, loaded), signal.SIGKILL)
    host.wait_until(lambda: loaded.runSection.state == "idle", 60)
    assert "ended unexpectedly" in loaded.ui.statusLabel.text
    assert "out of memory" in loaded.ui.statusLabel.text
    assert loaded.ui.applyButton.enabled


def test_a_scene_that_is_closed_during_a_run_leaves_a_usable_panel(host, loaded):
    loaded.ui.applyButton.click()
    pid = wait_for_worker(host, loaded)
    slicer.mrmlScene.Clear(0)
    host.process_events()
    assert loaded.ui.casesTable.rowCount == 0
    assert loaded.ui.applyButton.text == "Cancel"
    loaded.ui.applyButton.click()
    host.wait_until(lambda: loaded.runSection.state == "idle", 60)
    assert not is_alive(pid)


def test_closing_the_module_ends_its_run(host, loaded):
    loaded.ui.applyButton.click()
    pid = wait_for_worker(host, loaded)
    host.unload_module("SSLSeg")
    deadline = time.monotonic() + 10
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(pid)


def test_a_case_that_cannot_be_prepared_is_named_and_leaves_no_files(host, loaded, monkeypatch, tmp_path):
    said = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: said.append(text))
    loaded.ui.applyButton.click()
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    loaded.session.cases.find("c3").volume.SetAndObserveTransformNodeID(transform.GetID())
    host.wait_until(lambda: said or loaded.runSection.state == "running", 60)
    assert "c3" in said[0]
    assert "transform" in said[0]
    assert not list((tmp_path / "jobs").glob("run-*"))
    assert loaded.runSection.state == "idle"


def test_a_case_without_a_class_is_not_given_the_segment_that_once_had_its_number(loaded, tmp_path):
    first = loaded.session.cases.find("c0").segmentation.GetSegmentation()
    first.GetNthSegment(0).SetName("tumour")  # its class gets the value 1, as “class 1” had when it was loaded
    run = loaded.logic.prepare(folder=tmp_path / "prepared", weights=loaded.session.parameters.weights, report=False)
    cohort = run.job.manifest.checked_parameters().loaded_cohort()
    values = {each.name: each.value for each in cohort.classes}
    assert sorted(values) == ["class 1", "class 2", "tumour"]
    held = {case.id: {*np.unique(read_label(cohort, case).array)} - {0} for case in cohort.labelled}
    assert held == {
        "c0": {values["tumour"], values["class 2"]},
        "c1": {values["class 1"], values["class 2"]},
    }


def test_a_case_with_none_of_the_ticked_classes_is_told_and_is_not_taken_for_another_class(loaded, tmp_path):
    second = loaded.session.cases.find("c1").segmentation.GetSegmentation()
    second.RemoveSegment(second.GetSegmentIdBySegmentName("class 2"))
    loaded.session.parameters.ignoredSegments["class 1"] = True  # “class 2” is now the first class
    loaded.refresh()
    assert "c1: Its segmentation has none of the ticked classes" in loaded.ui.applyButton.toolTip
    assert "c0:" not in loaded.ui.applyButton.toolTip
    weights = loaded.session.parameters.weights
    with pytest.raises(CaseError, match="none of the classes class 2"):
        loaded.logic.prepare(folder=tmp_path / "prepared", weights=weights, ignored=["class 1"])
    loaded.session.cases.find("c1").role = "ignored"
    loaded.refresh()
    assert loaded.ui.applyButton.enabled


@pytest.mark.parametrize(
    ("error", "sentence", "step"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/job"), "The disk is full: /job", "Make space"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "The disk is full.", "another folder"),
        (PermissionError(errno.EACCES, "Permission denied", "/job"), "may not be written or read: /job", "Choose"),
        (MemoryError(), "too little free memory", "Close other programs"),
    ],
)
def test_what_stops_the_writing_of_scans_is_told_with_the_next_step(
    host, loaded, monkeypatch, tmp_path, error, sentence, step
):
    from SSLSegPanel import prepare

    def fail(*_):
        raise error

    said = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: said.append(text))
    monkeypatch.setattr(prepare, "_write_plain", fail)
    loaded.ui.applyButton.click()
    host.wait_until(lambda: said, 60)
    assert sentence in said[0]
    assert step in said[0]
    assert loaded.runSection.state == "idle"
    assert loaded.ui.applyButton.enabled
    assert not list((tmp_path / "jobs").glob("run-*"))


def test_a_job_folder_that_is_a_file_is_told(host, loaded, monkeypatch, tmp_path):
    said = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: said.append(text))
    (tmp_path / "file").write_text("in the way")
    loaded.ui.outputEdit.setCurrentPath(str(tmp_path / "file"))
    loaded.ui.applyButton.click()
    host.wait_until(lambda: said, 60)
    assert "in the way" in said[0]
    assert "Choose another folder" in said[0]
    assert loaded.runSection.state == "idle"
    assert loaded.ui.applyButton.enabled


def test_a_child_that_fails_says_why_and_what_to_do_and_keeps_its_log(host, loaded, monkeypatch):
    from SSLSegPanel.job_run import JobRun

    start = JobRun.start

    def damaged(run, **options):
        (run.job.folder.parent / "inputs" / "images" / "c3_0000.nrrd").write_bytes(b"NRRD0004\ncut off")
        start(run, **options)

    monkeypatch.setattr(JobRun, "start", damaged)
    loaded.ui.applyButton.click()
    host.wait_until(lambda: loaded.runSection.state == "idle" and loaded.session.run is not None, 120)
    assert "c3" in loaded.ui.statusLabel.text
    assert loaded.ui.statusLabel.text.count(".") >= 2, loaded.ui.statusLabel.text  # what, and what to do
    assert loaded.ui.applyButton.enabled
    loaded.ui.detailsButton.click()
    assert not loaded.ui.logText.isHidden()
    log = loaded.ui.logText.toPlainText()
    assert str(loaded.session.run.job.folder) in log
    assert "failed" in log


def test_a_cancelled_run_is_gone_on_with_after_a_restart_and_computes_the_missing_cases_only(host, loaded, batch_job):
    from helpers_module import MODULE

    assert loaded.ui.resumeButton.isHidden()
    loaded.ui.applyButton.click()
    host.wait_until(lambda: loaded.ui.resultsTable.rowCount == 1, 120)
    folder, first = loaded.session.run.job.folder, next(c.id for c in loaded.session.cases if c.result)
    loaded.ui.applyButton.click()
    host.wait_until(lambda: loaded.runSection.state == "idle", 60)
    assert "Press Go on" in loaded.ui.statusLabel.text
    assert not loaded.ui.resumeButton.isHidden()
    host.unload_module("SSLSeg")
    slicer.mrmlScene.Clear(0)
    panel = host.load_module(MODULE)
    panel.ui.attachEdit.setCurrentPath(str(folder))
    panel.ui.attachButton.click()
    host.wait_until(lambda: not panel.ui.resumeButton.isHidden(), 60)
    result = folder / "results" / first / "result.json"
    before = result.stat().st_mtime_ns
    panel.ui.resumeButton.click()
    assert panel.ui.resumeButton.isHidden()
    host.wait_until(lambda: panel.runSection.state == "idle", 300)
    assert "Finished" in panel.ui.statusLabel.text
    assert panel.ui.resumeButton.isHidden()
    assert panel.session.run.job.folder == folder
    assert panel.ui.resultsTable.rowCount == 2
    assert result.stat().st_mtime_ns == before
    expected = results_of(batch_job)
    assert all(np.array_equal(mask, expected[name]) for name, mask in results_of(folder).items())


def test_the_expected_quality_is_told_with_a_warning_where_the_cases_are_few(host, loaded):
    loaded.ui.expectButton.click()
    host.wait_until(lambda: loaded.runSection.state == "idle", 300)
    text = loaded.ui.statusLabel.text
    assert "Expected Dice" in text
    assert "class 1" in text
    assert "too few" in text
    assert loaded.ui.resultsTable.rowCount == 0


def test_vessa_is_a_method_of_its_own_with_a_bank_of_the_labelled_slices(host, loaded):
    loaded.ui.methodBox.setCurrentIndex(1)
    loaded.methodSection.onMethod(1)
    assert not loaded.ui.presetBox.enabled
    assert not loaded.ui.expectButton.enabled
    assert "Only for the method TFFS-MedSAM2" in loaded.ui.expectButton.toolTip
    loaded.ui.applyButton.click()
    host.wait_until(lambda: loaded.runSection.state == "idle", 300)
    assert "Finished" in loaded.ui.statusLabel.text, loaded.ui.statusLabel.text
    run = loaded.session.run
    assert run.job.manifest.kind == "vessa"
    assert (run.job.folder.parent / "bank").is_dir()
    expected = results_of(run.job.folder)
    for case_id in ("c2", "c3"):
        case = loaded.session.cases.find(case_id)
        shown = segment_masks(case.result, case.volume)
        assert np.array_equal(shown["class 1"] + 2 * shown["class 2"], expected[case_id])
        assert "VESSA" in case.result.GetAttribute("SSLSeg.Method")
