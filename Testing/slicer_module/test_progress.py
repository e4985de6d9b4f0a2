"""The line that a run's progress is told in, from the events of its log."""

from datetime import UTC, datetime, timedelta

import pytest


@pytest.fixture
def progress(slicer_host):
    """Progress with a clock that the test moves: ``progress.now``."""
    from SSLSegPanel.progress import RunProgress

    class Moved(RunProgress):
        now = 100.0

        def __init__(self):
            super().__init__(clock=lambda: self.now)

    return Moved()


def at(seconds_ago=0):
    return (datetime.now(UTC) - timedelta(seconds=seconds_ago)).isoformat()


def test_the_line_names_stage_and_case_and_the_time_left_once_it_can_be_known(progress):
    progress.feed({"event": "stage", "stage": "predicting"})
    progress.feed({"event": "progress", "stage": "predicting", "done": 0, "total": 100, "case": "c2"})
    progress.now += 2
    progress.feed({"event": "progress", "stage": "predicting", "done": 10, "total": 100, "case": "c2"})
    assert progress.text() == "Segmenting · c2"  # too early to say
    progress.now += 8
    progress.feed({"event": "progress", "stage": "predicting", "done": 50, "total": 100, "case": "c3"})
    assert progress.fraction == 0.5
    assert progress.text() == "Segmenting · c3 · about 10 s left"


def test_the_time_left_is_that_of_the_whole_run_where_it_has_estimated_itself(progress):
    progress.feed({"event": "estimate", "time": at(), "seconds": 60})
    progress.feed({"event": "stage", "stage": "Encoding labelled cases"})
    progress.feed({"event": "progress", "stage": "Encoding labelled cases", "done": 0, "total": 10})
    progress.now += 10
    progress.feed({"event": "progress", "stage": "Encoding labelled cases", "done": 9, "total": 10})
    assert progress.seconds_left < 2
    assert progress.text() == "Encoding labelled cases · about 50 s left"
    progress.now += 70  # longer than it thought: of the stage then
    progress.feed({"event": "progress", "stage": "Segmenting", "done": 0, "total": 10, "case": "c2"})
    progress.now += 20
    progress.feed({"event": "progress", "stage": "Segmenting", "done": 5, "total": 10, "case": "c2"})
    assert progress.text() == "Segmenting · c2 · about 20 s left"


def test_of_a_run_that_is_attached_to_the_time_that_has_gone_is_taken_off(progress):
    progress.feed({"event": "estimate", "time": at(seconds_ago=40), "seconds": 60})
    assert progress.whole_left == pytest.approx(20, abs=2)


def test_the_log_keeps_the_last_lines_and_no_steps(progress):
    for number in range(500):
        progress.feed({"event": "warning", "time": at(), "message": f"number {number}"})
        progress.feed({"event": "progress", "stage": "Segmenting", "done": number, "total": 500})
    lines = progress.log.splitlines()
    assert len(lines) == 400
    assert lines[-1].endswith("warning  message: number 499")
