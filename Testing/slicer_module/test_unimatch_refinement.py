"""UniMatch v2 as refinement: a few steps of the real training in a real child process."""

import pytest
from helpers_module import plot_curves, quiet, results_of, segment_masks, texts

pytest.importorskip("transformers")
pytest.importorskip("accelerate")


@pytest.fixture
def choosing(reviewing):
    """The panel with a finished run and UniMatch v2 chosen, a few steps."""
    from SSLSegPanel import refinement

    panel = reviewing
    panel.ui.refineMethodBox.setCurrentIndex(refinement.known_methods().index("unimatch"))
    panel.ui.stepsBox.setValue(2)
    return panel


def test_choosing_the_method_shows_its_options_only(choosing):
    shown = {name: not getattr(choosing.ui, name).isHidden() for name in ("roundsBox", "guideBox", "stepsBox")}
    assert shown == {"roundsBox": False, "guideBox": True, "stepsBox": True}
    assert "slices" in choosing.ui.refineLabel.text
    choosing.ui.refineMethodBox.setCurrentIndex(0)
    assert choosing.ui.guideBox.isHidden()


def test_a_click_trains_with_the_runs_pseudo_labels_as_guide_and_its_labels_are_shown(host, choosing, finished_job):
    panel = choosing
    assert panel.ui.refineButton.enabled, panel.ui.refineLabel.text
    panel.ui.refineButton.click()
    host.wait_until(lambda: panel.refineSection.training is not None, 60)
    training = panel.refineSection.training
    try:
        assert training.job.manifest.parameters["options"]["guide"] == "tffs"
        host.wait_until(lambda: not panel.refineSection._timer.active, 240)
        assert "training has ended" in panel.ui.refineStatusLabel.text, panel.ui.refineStatusLabel.text
    finally:
        training.kill()
    assert [row[0] for row in texts(panel.ui.roundsTable)] == ["Pseudo-labels", "UniMatch v2, quick-tffs"]
    panel.ui.plotButton.click()
    assert "Training loss" in plot_curves()
    panel.ui.roundsTable.selectRow(1)
    assert not panel.ui.rollBackButton.enabled
    panel.ui.loadRoundButton.click()
    quiet(host, panel)
    expected = results_of(training.job.folder)
    for name in ("c2", "c3"):
        case = panel.session.cases.find(name)
        shown = segment_masks(case.result, case.volume)
        assert (shown["class 1"] + 2 * shown["class 2"] == expected[name]).all()
        assert "UniMatch" in case.result.GetAttribute("SSLSeg.Method")
        assert case.uncertainty is not None
    panel.ui.roundsTable.selectRow(0)
    panel.ui.loadRoundButton.click()
    quiet(host, panel)
    case = panel.session.cases.find("c2")
    shown = segment_masks(case.result, case.volume)
    assert (shown["class 1"] + 2 * shown["class 2"] == results_of(finished_job)["c2"]).all()


def test_a_rejected_case_is_left_out_of_the_training(choosing):
    choosing.ui.resultsTable.selectRow(0)
    case = choosing.resultsSection.current()
    choosing.ui.rejectButton.click()
    job = choosing.logic.prepareRefinement(choosing.session.run, "unimatch", guide="tffs", steps=2)
    assert job.manifest.parameters["guide"]["rejected"] == [case.id]
