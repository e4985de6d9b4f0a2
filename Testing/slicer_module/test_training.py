"""Refinement with real nnU-Net in real child processes, on a tiny cohort: from the click to a model elsewhere."""

import functools
import json
import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import short_worker
import slicer
from helpers_module import MODULE, beating, longest_step, plot_curves, quiet, segment_masks, texts

from SSLSegLib.cases.reading import read_label_file
from SSLSegLib.jobs import process
from SSLSegLib.processes import LIBRARY
from SSLSegLib.pseudolabels.storage import read_result

pytest.importorskip("nnunetv2")


@pytest.fixture(scope="module")
def short_trainings():
    """Jobs that the panel starts train for fewer epochs."""
    paths = os.pathsep.join([str(LIBRARY), str(Path(short_worker.__file__).parent)])
    start = functools.partial(process.start_job, worker="short_worker", environment={"PYTHONPATH": paths})
    with pytest.MonkeyPatch.context() as during:
        during.setattr(process, "start_job", start)
        yield


@pytest.fixture(scope="module")
def trained(slicer_host, inputs, batch_job, short_trainings, tmp_path_factory):
    """A run refined by a click, one quick round from the pseudo-labels as they are, and what was seen meanwhile.

    The training is stopped by a click and started again; then Slicer is closed (the panel is unloaded) in the middle
    of it, and the job is attached to again.
    """
    folder = tmp_path_factory.mktemp("trained")
    job = Path(shutil.copytree(batch_job, folder / "run"))
    slicer_host.reset()
    panel = slicer_host.load_module(MODULE)
    seen = SimpleNamespace(job=job, texts=[], training=None)
    try:
        attach(slicer_host, panel, job)
        panel.ui.refinePresetBox.setCurrentIndex(0)
        panel.ui.firstLabelsBox.setCurrentIndex(1)  # given: to choose them takes another training
        panel.ui.roundsBox.setValue(1)
        assert panel.ui.refineButton.enabled, panel.ui.refineLabel.text
        panel.ui.refineButton.click()
        slicer_host.wait_until(lambda: panel.refineSection.running, 60)
        seen.button = panel.ui.refineButton.text
        seen.training = panel.refineSection.training.job.folder
        panel.ui.plotButton.click()
        with beating(time.thread_time) as beats:
            slicer_host.wait_until(lambda: "Training loss" in plot_curves(), 600)
            seen.texts.append(panel.ui.refineStatusLabel.text)
            seen.epochs_while_running = len(plot_curves()["Training loss"])
        seen.stall = longest_step(beats)
        stop_and_start(slicer_host, panel, seen)
        slicer_host.unload_module("SSLSeg")  # the training must not end with it
        slicer.mrmlScene.Clear(0)
        time.sleep(1)
        panel = slicer_host.load_module(MODULE)
        attach(slicer_host, panel, seen.training)
        seen.attached_running = panel.refineSection.running
        slicer_host.wait_until(lambda: not panel.refineSection._timer.active, 900)
        panel.ui.plotButton.click()
        seen.curves = plot_curves()
        seen.texts.append(panel.ui.refineStatusLabel.text)
        seen.rows = texts(panel.ui.roundsTable)
        seen.cases = [case.id for case in panel.session.cases]
    finally:
        training = panel.refineSection.training
        if training is not None and training.running:
            training.kill()
    slicer_host.unload_module("SSLSeg")
    slicer.mrmlScene.Clear(0)
    return seen


def stop_and_start(host, panel, seen):
    """Stop the training by a click, look that nothing of it lives, and go on by another click."""
    import psutil

    first = panel.refineSection.training
    family = [psutil.Process(first._pid())]
    family += family[0].children(recursive=True)
    panel.ui.refineButton.click()
    seen.stopping = (panel.ui.refineButton.text, panel.ui.refineButton.enabled)
    host.wait_until(lambda: not panel.refineSection._timer.active, 60)
    seen.stopped = panel.ui.refineStatusLabel.text
    seen.survivors = [each for each in family if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    seen.epochs_before_stop = epochs(first.progress.metrics)
    before = len(first.progress.metrics)
    panel.ui.refineButton.click()
    host.wait_until(lambda: panel.refineSection.training is not first, 60)
    again = panel.refineSection.training
    seen.same_job = again.job.folder == first.job.folder
    host.wait_until(lambda: len(again.progress.metrics) > before, 600)
    seen.epochs_after_stop = epochs(again.progress.metrics[before:])


def epochs(metrics):
    """Fold and epoch of each metric event."""
    return {(event["fold"], event["epoch"]) for event in metrics if "epoch" in event}


def attach(host, panel, folder):
    panel.ui.attachEdit.setCurrentPath(str(folder))
    panel.ui.attachButton.click()
    host.wait_until(lambda: panel.ui.resultsTable.rowCount == 2 and panel.runSection.state == "idle", 60)
    quiet(host, panel)


@pytest.fixture
def after_training(host, panel, trained, tmp_path):
    """The panel with a copy of the trained run."""
    job = Path(shutil.copytree(trained.job, tmp_path / "run"))
    attach(host, panel, job)
    return panel


def test_the_chosen_first_labels_are_those_of_the_training(trained):
    options = json.loads((trained.job / "selftraining" / "settings.json").read_text())["options"]
    assert "first_labels" not in options  # of given ones nothing is written down
    assert not (trained.job / "selftraining" / "first").exists()


def test_a_click_trains_in_a_process_that_outlives_the_panel(trained):
    assert trained.button == "Stop training"
    assert "Round 1: training" in trained.texts[0]
    assert trained.attached_running
    assert "training has ended" in trained.texts[1]


def test_a_stopped_training_leaves_no_process_and_goes_on_where_it_was(trained):
    assert trained.stopping == ("Stopping …", False)
    assert "go on where it was" in trained.stopped
    assert trained.survivors == []
    assert trained.same_job
    assert trained.epochs_after_stop
    assert not trained.epochs_before_stop & trained.epochs_after_stop  # no epoch is trained a second time


def test_the_gui_thread_works_for_less_than_100_ms_at_a_time_while_it_trains(trained):
    assert trained.stall < 0.1


def test_the_plot_grows_while_the_training_runs_and_is_whole_after_it_is_attached_to_again(trained):
    assert 1 <= trained.epochs_while_running <= short_worker.EPOCHS
    assert [at for at, _loss in trained.curves["Training loss"]] == list(range(1, short_worker.EPOCHS + 1))
    ((at, agreement),) = trained.curves["Agreement with the labels before"]
    assert at == short_worker.EPOCHS
    assert f"{agreement:.3f}" == trained.rows[1][2]


def test_attaching_to_a_training_brings_the_cases_and_results_of_the_run_it_refines(trained):
    assert trained.cases == ["c0", "c1", "c2", "c3"]
    assert [row[0] for row in trained.rows] == ["Pseudo-labels", "Round 1"]


def test_a_trained_rounds_labels_are_shown_voxel_for_voxel(host, after_training, trained):
    after_training.ui.roundsTable.selectRow(1)
    after_training.ui.loadRoundButton.click()
    quiet(host, after_training)
    for name in ("c2", "c3"):
        case = after_training.session.cases.find(name)
        shown = segment_masks(case.result, case.volume)
        classes = read_result(trained.job / "results" / name).classes
        path = trained.job / "selftraining" / "rounds" / "1" / "predictions" / f"{name}.nii.gz"
        expected = read_label_file(path, classes).array
        assert np.array_equal(shown["class 1"] + 2 * shown["class 2"], expected)
        assert case.result.GetAttribute("SSLSeg.Method") == "FSL-nnUNet, round 1"


def test_the_model_segments_a_volume_that_is_in_no_list(host, after_training):
    source = after_training.session.cases.find("c0").volume
    volume = slicer.util.addVolumeFromArray(slicer.util.arrayFromVolume(source), name="new scan")
    volume.CopyOrientation(source)
    after_training.ui.applyVolumeSelector.setCurrentNode(volume)
    after_training.ui.applyModelButton.click()
    host.wait_until(lambda: "Added: new scan model" in after_training.ui.exportLabel.text, 120)
    node = slicer.util.getNode("new scan model")
    assert set(segment_masks(node, volume)) == {"class 1", "class 2"}
    assert node.GetNodeReference("referenceImageGeometryRef") is volume
    assert node.GetAttribute("SSLSeg.Kind") == "pseudo-label"
    assert not list(after_training.session.run.job.folder.parent.glob("applied/*"))


def test_the_model_is_exported_as_a_stock_nnunet_folder(host, after_training, tmp_path):
    after_training.exportSection.exportModel(str(tmp_path / "models"))
    host.wait_until(lambda: "The model is in" in after_training.ui.exportLabel.text, 120)
    folder = Path(after_training.ui.exportLabel.text.removeprefix("The model is in "))
    assert folder.name == "nnUNetTrainer__nnUNetPlans__2d"
    assert sorted(path.name for path in folder.glob("fold_*/checkpoint_final.pth")) == ["checkpoint_final.pth"] * 2
