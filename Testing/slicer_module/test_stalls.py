"""What a click sets off beside the GUI thread or in pieces: Slicer lives meanwhile, and the outcome is the same."""

import time

import numpy as np
import pytest
import slicer
from helpers_module import beating, block, draw, quiet, segment_masks

from SSLSegLib.pseudolabels.review import load_review

SLOW = 0.5  # seconds that the disk takes here


@pytest.fixture
def beats():
    """Times at which the GUI thread looked at its events."""
    with beating(time.monotonic) as times:
        yield times


def slowly(monkeypatch, module, name):
    """Let a function take its time, as a slow disk does. Returns ``[began, ended]`` of each call."""
    spans, real = [], getattr(module, name)

    def slow(*arguments, **options):
        spans.append([time.monotonic(), None])
        time.sleep(SLOW)
        value = real(*arguments, **options)
        spans[-1][1] = time.monotonic()
        return value

    monkeypatch.setattr(module, name, slow)
    return spans


def lived_through(beats, spans):
    """Whether the GUI thread went on all the time: by count, since a busy machine stretches single beats."""
    assert spans
    return all(sum(began < each < ended for each in beats) >= 5 for began, ended in spans)


def first_case(panel):
    panel.ui.resultsTable.selectRow(0)
    return panel.resultsSection.current()


def test_slicer_lives_while_what_clicks_will_need_is_imported(host, panel, monkeypatch, tmp_path, beats):
    import importlib

    from SSLSegPanel import session

    quiet(host, panel)
    code = f"import time\nbegan = time.monotonic()\ntime.sleep({SLOW})\nended = time.monotonic()\n"
    (tmp_path / "slow_to_import.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(session, "_NEEDED_LATER", ("slow_to_import",))
    panel.session.stepper.start(session.warm_steps())
    quiet(host, panel)
    imported = importlib.import_module("slow_to_import")
    assert lived_through(beats, [(imported.began, imported.ended)])


def test_slicer_lives_while_a_label_is_put_back_and_its_case_cannot_be_decided_on(
    host, reviewing, finished_job, monkeypatch, beats
):
    from SSLSegLib.scene import cases

    case = first_case(reviewing)
    before = segment_masks(case.result, case.volume)
    reviewing.ui.rejectButton.click()
    draw(case, "class 1", block(case, 2, 9))
    reviewing.resultsSection.show(case)
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda *_: True)
    spans = slowly(monkeypatch, cases, "read_result_files")
    reviewing.ui.revertButton.click()
    assert not reviewing.ui.acceptButton.enabled
    assert "Wait until" in reviewing.ui.revertButton.toolTip
    reviewing.resultsSection.onAccept()  # the key
    reviewing.resultsSection.onRevert()
    quiet(host, reviewing)
    assert lived_through(beats, spans)
    assert len(spans) == 1
    after = segment_masks(case.result, case.volume)
    assert all(np.array_equal(after[name], before[name]) for name in before)
    assert load_review(finished_job / "results" / case.id).state == "unreviewed"
    assert reviewing.ui.acceptButton.enabled


def test_slicer_lives_while_a_correction_is_written(host, reviewing, finished_job, monkeypatch, beats):
    from SSLSegPanel import review

    from SSLSegLib.cases import writing

    case = first_case(reviewing)
    review.begin_correction(case)
    spans = slowly(monkeypatch, writing, "write_label")
    reviewing.ui.correctButton.click()
    quiet(host, reviewing)
    assert lived_through(beats, spans)
    assert load_review(finished_job / "results" / case.id).state == "corrected"
    assert review.review_state(case.result) == "corrected"


def test_a_segmentation_that_is_deleted_while_it_is_written_is_told(host, reviewing, monkeypatch):
    from SSLSegPanel import review

    from SSLSegLib.cases import writing

    said = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: said.append(text))
    case = first_case(reviewing)
    review.begin_correction(case)
    spans = slowly(monkeypatch, writing, "write_label")
    reviewing.ui.correctButton.click()
    host.wait_until(lambda: spans)
    slicer.mrmlScene.RemoveNode(case.result)
    quiet(host, reviewing)
    assert "was deleted" in said[0]
    assert not reviewing.resultsSection._working


def test_slicer_lives_while_sample_data_waits_for_its_scans_and_a_second_click_starts_nothing(
    host, panel, inputs, monkeypatch, beats
):
    import qt
    import SampleData
    from SSLSegPanel import loading

    spans, second = [], []

    def generated(folder):
        began = time.monotonic()
        while time.monotonic() < began + SLOW:
            yield 0.1  # as for a child
        spans.append((began, time.monotonic()))
        return (yield from loading.load_steps(inputs.cohort))

    monkeypatch.setattr(loading, "sample_steps", generated)
    again = qt.QTimer()
    again.setSingleShot(True)
    again.setInterval(50)
    again.connect("timeout()", lambda: second.append(panel.logic.loadSampleData()))
    again.start()
    volumes = SampleData.SampleDataLogic().downloadSample("SSLSegPhantom")
    assert len(volumes) == 4
    assert second == [[]]
    assert lived_through(beats, spans)
