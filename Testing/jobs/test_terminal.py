import io
import re

import pytest
from rich.console import Console

from SSLSegLib.jobs.terminal import TerminalProgress


def shown(*, terminal, events):
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=100, color_system=None)
    with TerminalProgress(console) as progress:
        for event, fields in events:
            progress(event, **fields)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text.getvalue())


EVENTS = [
    ("stage", {"stage": "Segmenting", "total": 40}),
    ("progress", {"stage": "Segmenting", "done": 10, "total": 40, "case": "la_004"}),
    ("progress", {"stage": "Segmenting", "done": 40, "total": 40, "case": "la_004"}),
    ("result", {"case": "la_004", "seconds": 12.3}),
    ("warning", {"message": "It is [bold]dark[/bold].", "case": "la_005"}),
    ("an event of a later version", {"anything": 1}),
]


def test_a_terminal_shows_the_stage_the_case_what_is_done_and_the_time_left():
    text = shown(terminal=True, events=EVENTS[:2])
    assert "Segmenting la_004" in text
    assert "10/40" in text
    assert re.search(r"left.*(-:--:--|\d:\d\d:\d\d)", text)


@pytest.mark.parametrize("terminal", [True, False])
def test_what_a_run_will_take_is_said_in_words(terminal):
    figures = {"seconds": 750, "memory": 2_340_000_000, "memory_on_disk": 1, "disk": 123_400_000_000, "scratch": 1}
    text = shown(terminal=terminal, events=[("estimate", {**figures, "a figure of a later version": 1})])
    assert "Expected for this run: about 12 min, 2.3 GB of memory, 123.4 GB of disk." in text


def test_a_log_file_gets_a_line_per_stage_and_result_and_no_control_codes():
    text = shown(terminal=False, events=EVENTS)
    assert text.splitlines()[:2] == ["Segmenting (40)", "  la_004 done in 12 s"]
    assert "Case la_005: It is [bold]dark[/bold]." in text
    assert "\r" not in text
