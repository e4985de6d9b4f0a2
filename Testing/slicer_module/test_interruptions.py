"""Somebody goes to another module, closes the scene or deletes nodes while the panel works."""

import pytest
import slicer
from helpers_module import quiet
from slicerhost.fixtures import host, slicer_host  # noqa: F401 - pytest needs the names

from SSLSegLib.errors import CaseError


@pytest.fixture
def errors(monkeypatch):
    """Texts of the error boxes."""
    said = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: said.append(text))
    return said


def test_a_run_goes_on_and_ends_while_another_module_is_shown(host, loaded, errors):  # noqa: F811
    loaded.ui.applyButton.click()
    host.wait_until(lambda: loaded.runSection.state == "running", 60)
    host.show_module("SegmentEditor")
    host.wait_until(lambda: loaded.runSection.state == "idle", 300)
    host.show_module("SSLSeg")
    assert "Finished" in loaded.ui.statusLabel.text
    assert loaded.ui.resultsTable.rowCount == 2
    assert not errors


def test_a_cohort_is_loaded_while_another_module_is_shown(host, panel, inputs, errors):  # noqa: F811
    panel.casesSection.load(inputs.cohort)
    host.show_module("SegmentEditor")
    quiet(host, panel)
    host.show_module("SSLSeg")
    assert panel.ui.casesTable.rowCount == 4
    assert panel.ui.addButton.enabled
    assert not errors


def test_what_is_chosen_after_a_return_to_the_panel_is_the_scenes(host, loaded):  # noqa: F811
    host.show_module("SegmentEditor")
    loaded.ui.presetBox.setCurrentIndex(0)  # not tied: nobody sees the panel
    host.show_module("SSLSeg")
    loaded.ui.seedBox.setValue(7)
    assert loaded.session.parameters.seed == 7
    assert loaded.session.parameters.preset.value == "balanced"
    assert loaded.ui.presetBox.currentIndex == 1


def test_a_scene_that_is_closed_while_its_scans_are_written_starts_no_run(host, loaded, errors, tmp_path):  # noqa: F811
    loaded.ui.applyButton.click()
    assert loaded.runSection.state == "preparing"
    slicer.mrmlScene.Clear(0)
    assert loaded.runSection.state == "idle"
    quiet(host, loaded)
    assert not errors
    assert not list((tmp_path / "jobs").glob("run-*"))


@pytest.mark.parametrize(
    ("what", "sentence"),
    [("segmentation", "A labelled case needs a segmentation"), ("case", "It was removed from the table")],
)
def test_what_is_deleted_while_scans_are_written_is_told_as_a_sentence(loaded, tmp_path, what, sentence):
    from SSLSegPanel.prepare import RunChoices, finish, prepare_steps

    case = loaded.session.cases.find("c1")
    steps = prepare_steps(loaded.session.cases, RunChoices(), tmp_path / "run")
    assert next(steps) == "Writing c0"
    slicer.mrmlScene.RemoveNode(case.segmentation if what == "segmentation" else case.node)
    with pytest.raises(CaseError, match=f"^Case c1: {sentence}"):
        finish(steps)
    assert not (tmp_path / "run").exists()


def test_the_folder_of_a_run_is_its_job_and_another_folder_is_told(host, loaded, errors, finished_job, tmp_path):  # noqa: F811
    loaded.ui.attachEdit.setCurrentPath(str(tmp_path / "jobs"))
    loaded.ui.attachButton.click()
    assert "The job could not be opened." in errors[0]
    assert "Check the path" in errors[0]
    (tmp_path / "run-1").mkdir()
    finished_job.rename(tmp_path / "run-1" / "job")
    loaded.ui.attachEdit.setCurrentPath(str(tmp_path / "run-1"))
    loaded.ui.attachButton.click()
    host.wait_until(lambda: loaded.ui.resultsTable.rowCount == 2, 60)
    assert len(errors) == 1


def test_a_scene_that_is_closed_while_a_cohort_is_loaded_leaves_the_next_scene_empty(host, panel, inputs, errors):  # noqa: F811
    panel.casesSection.load(inputs.cohort)
    host.wait_until(lambda: len(panel.session.cases) > 0, 60)
    slicer.mrmlScene.Clear(0)
    quiet(host, panel)
    assert len(panel.session.cases) == 0
    assert panel.ui.addButton.enabled
    assert not errors


def test_a_scene_that_is_closed_in_another_module_is_empty_in_the_panel(host, loaded):  # noqa: F811
    host.show_module("SegmentEditor")
    slicer.mrmlScene.Clear(0)
    host.process_events()
    host.show_module("SSLSeg")
    assert loaded.ui.casesTable.rowCount == 0
    assert loaded.session.parameters.jobFolder == ""


def test_a_case_that_is_deleted_during_an_export_is_named(host, reviewing, errors, tmp_path, monkeypatch):  # noqa: F811
    for case in reviewing.session.cases:
        if case.result is not None:
            reviewing.resultsSection.show(case)
            reviewing.resultsSection.onAccept()
    third, section = reviewing.session.cases.find("c3").result, reviewing.exportSection
    said, texts = section._said, []

    def said_and_deleted(text):
        said(text)
        texts.append(reviewing.ui.exportLabel.text)
        if "c2" in text:  # in this very step: a fast export has shown the next text before a test could look
            slicer.mrmlScene.RemoveNode(third)

    monkeypatch.setattr(section, "_said", said_and_deleted)
    reviewing.ui.exportEdit.setCurrentPath(str(tmp_path / "out"))
    reviewing.ui.exportButton.click()
    host.wait_until(lambda: errors, 60)
    assert any("c2" in text for text in texts)
    quiet(host, reviewing)
    assert len(errors) == 1
    assert "c3" in errors[0]
    assert "deleted" in errors[0]
    assert (tmp_path / "out" / "c2.nii.gz").is_file()
    assert not (tmp_path / "out" / "c3.nii.gz").exists()


def test_an_ignored_case_whose_voxels_are_gone_is_shown(host, loaded):  # noqa: F811
    case = loaded.session.cases.find("c3")
    case.volume.SetAndObserveImageData(None)
    case.role = "ignored"
    loaded.refresh()
    assert loaded.ui.casesTable.item(3, 1).text() == "Ignored"
