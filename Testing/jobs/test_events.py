import ast
import json
import subprocess
import sys
import threading

import pytest

from SSLSegLib.errors import JobError
from SSLSegLib.jobs.events import EventFollower, EventLog, read_events
from SSLSegLib.messages import EVENTS
from SSLSegLib.processes import LIBRARY

UNKNOWN = b'{"schema_version": 1, "event": "delete_everything"}'


@pytest.fixture
def path(tmp_path):
    return tmp_path / "events.jsonl"


def test_events_come_back_in_order_one_json_object_a_line(path):
    with EventLog(path) as log:
        log("stage", stage="Encoding", total=3)
        log("result", case="é\n")
    assert [event["event"] for event in read_events(path)] == ["stage", "result"]
    lines = path.read_bytes().splitlines()
    assert len(lines) == 2
    assert json.loads(lines[1])["case"] == "é\n"
    assert all(line.isascii() for line in lines)


def test_a_torn_last_line_is_left_out_by_readers_and_cut_off_by_the_next_writer(path):
    with EventLog(path) as log:
        log("stage")
    with open(path, "ab") as file:
        file.write(b'{"schema_version": 1, "event": "tor')
    assert [event["event"] for event in read_events(path)] == ["stage"]
    with EventLog(path) as log:
        log("warning")
    assert [event["event"] for event in read_events(path)] == ["stage", "warning"]


def test_a_log_that_is_nothing_but_a_torn_line_starts_again(path):
    path.write_bytes(b'{"sch' * 30_000)
    with EventLog(path) as log:
        log("stage")
    assert [event["event"] for event in read_events(path)] == ["stage"]


def test_opening_for_writing_keeps_every_whole_line_of_a_long_log(path):
    with EventLog(path) as log:
        for number in range(3000):
            log("metric", number=number, filler="x" * 50)
    before = path.read_bytes()
    EventLog(path).close()
    assert path.read_bytes() == before


WRITE_UNTIL_FULL = """
import resource, sys
from pathlib import Path
from SSLSegLib.jobs.events import EventLog

log = EventLog(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 100_000))  # as a full disk: a part of a line is taken, then none
try:
    for number in range(100):
        log("metric", number=number)
except OSError:
    pass
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
log("failed", message="The disk is full.")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits as POSIX has them")
def test_a_disk_that_takes_only_a_part_of_a_line_does_not_damage_the_log(path):
    subprocess.run([sys.executable, "-c", WRITE_UNTIL_FULL, path], check=True, cwd=LIBRARY)
    events = read_events(path)
    assert [event["number"] for event in events[:-1]] == list(range(len(events) - 1))
    assert (len(events) > 5, events[-1]["event"]) == (True, "failed")


def test_a_follower_gives_each_event_once_and_waits_for_the_rest_of_a_line(path):
    follower = EventFollower(path)
    assert follower.poll() == []
    with EventLog(path) as log:
        log("stage")
        assert [event["event"] for event in follower.poll()] == ["stage"]
        with open(path, "ab") as file:
            file.write(b'{"schema_version": 1, ')
            file.flush()
            assert follower.poll() == []
            file.write(b'"event": "warning"}\n')
        assert [event["event"] for event in follower.poll()] == ["warning"]
        assert follower.poll() == []


def test_a_follower_of_a_writing_thread_misses_nothing(path):
    done = threading.Event()

    def write():
        with EventLog(path) as log:
            for number in range(200):
                log("metric", number=number)
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    numbers = [event["number"] for event in EventFollower(path).follow(done.is_set, interval=0.001)]
    thread.join()
    assert numbers == list(range(200))


def test_a_follower_may_ask_for_new_events_only(path):
    with EventLog(path) as log:
        log("stage")
        follower = EventFollower(path, only_new=True)
        log("warning")
        assert [event["event"] for event in follower.poll()] == ["warning"]


def test_a_flood_of_progress_is_thinned_but_its_end_is_always_told(path):
    with EventLog(path) as log:
        for done in range(1, 1001):
            log("progress", stage="Tracking", done=done, total=1000)
    events = read_events(path)
    assert len(events) < 200
    assert events[0]["done"] == 1
    assert events[-1]["done"] == 1000


@pytest.mark.parametrize(
    "line", [b"not json", b"[]", b'{"schema_version": 1}', b'{"event": "stage"}', b"\xff\xff", UNKNOWN]
)
def test_a_damaged_line_within_the_log_is_refused_with_its_number(path, line):
    with EventLog(path) as log:
        log("stage")
    with open(path, "ab") as file:
        file.write(line + b"\n")
    with pytest.raises(JobError, match=r"Line 2 of .* is damaged"):
        read_events(path)


def test_a_newer_log_is_refused(path):
    path.write_text('{"schema_version": 2, "event": "stage"}\n')
    with pytest.raises(JobError, match="newer version"):
        read_events(path)


def test_an_event_that_the_protocol_does_not_know_is_not_even_written(path):
    with EventLog(path) as log, pytest.raises(ValueError, match="no event of the protocol"):
        log("delete_everything")
    assert path.read_bytes() == b""


def test_the_protocol_knows_every_event_that_the_library_tells():
    told = set()
    for source in LIBRARY.glob("SSLSegLib/**/*.py"):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] in ("progress", "tell", "told"):
                told |= {first.value for first in node.args[:1] if isinstance(first, ast.Constant)}
    assert {"stage", "progress", "result", "metric"} <= told
    assert told <= set(EVENTS)
