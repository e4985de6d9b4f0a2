"""Downloads from a real server on loopback: whole, interrupted, resumed, wrong, without ranges."""

import hashlib
import multiprocessing
import os
import signal
import time

import pytest

from SSLSegLib.errors import WeightsError
from SSLSegLib.weights import transfer
from SSLSegLib.weights.transfer import fetch_file

CONTENT = bytes(range(256)) * 20_000  # 5.1 MB, more than one chunk
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def served(web):
    web.behaviour.files["/weights.pt"] = CONTENT


def leftovers(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_whole_with_progress(web, tmp_path):
    events = []
    digest = fetch_file(
        f"{web.url}/weights.pt", tmp_path / "w.pt", progress=lambda event, **fields: events.append((event, fields))
    )
    assert digest == DIGEST
    assert (tmp_path / "w.pt").read_bytes() == CONTENT
    assert leftovers(tmp_path) == ["w.pt"]
    done = [fields["done"] for event, fields in events if event == "progress"]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, len(CONTENT))
    assert {fields["total"] for _, fields in events} == {len(CONTENT)}


def test_an_interrupted_transfer_asks_only_for_the_rest(web, tmp_path):
    web.behaviour.cut_after = [3_000_000, 1_000_000]
    fetch_file(f"{web.url}/weights.pt", tmp_path / "w.pt", sha256=DIGEST)
    assert (tmp_path / "w.pt").read_bytes() == CONTENT
    first, second, third = web.behaviour.requests
    assert "Range" not in first
    started = [int(request["Range"].removeprefix("bytes=").removesuffix("-")) for request in (second, third)]
    assert 2_900_000 < started[0] <= 3_000_000
    assert 3_800_000 < started[1] <= 4_000_000
    assert second["If-Range"] == '"v1"'


def test_a_broken_off_download_is_continued_by_the_next_call(web, tmp_path):
    web.behaviour.cut_after = [2_500_000] + [0] * 10
    with pytest.raises(WeightsError, match=r"broke off after \d+ bytes") as caught:
        fetch_file(f"{web.url}/weights.pt", tmp_path / "w.pt")
    assert "Run the same command again" in str(caught.value)
    assert not (tmp_path / "w.pt").exists()
    kept = (tmp_path / "w.pt.part").stat().st_size
    assert kept > 0
    web.behaviour.cut_after.clear()
    web.behaviour.requests.clear()
    assert fetch_file(f"{web.url}/weights.pt", tmp_path / "w.pt") == DIGEST
    assert web.behaviour.requests[0]["Range"] == f"bytes={kept}-"
    assert leftovers(tmp_path) == ["w.pt"]


def _download_slowly(url, target):
    fetch_file(url, target, progress=lambda event, **fields: time.sleep(0.2 if fields["done"] else 0))


def test_a_killed_process_leaves_a_part_that_the_next_one_continues(web, tmp_path):
    target = tmp_path / "w.pt"
    child = multiprocessing.get_context("fork").Process(target=_download_slowly, args=(f"{web.url}/weights.pt", target))
    child.start()
    deadline = time.monotonic() + 20
    part = tmp_path / "w.pt.part"
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert not target.exists()
    kept = part.stat().st_size
    assert 0 < kept < len(CONTENT)
    assert fetch_file(f"{web.url}/weights.pt", target) == DIGEST
    assert web.behaviour.requests[-1]["Range"] == f"bytes={kept}-"


def test_a_server_without_ranges_sends_the_whole_again(web, tmp_path):
    web.behaviour.ranges = False
    web.behaviour.cut_after = [3_000_000]
    fetch_file(f"{web.url}/weights.pt", tmp_path / "w.pt", sha256=DIGEST)
    assert (tmp_path / "w.pt").read_bytes() == CONTENT


def test_a_file_that_changed_between_attempts_is_not_mixed(web, tmp_path):
    web.behaviour.cut_after = [3_000_000] + [0] * 10
    with pytest.raises(WeightsError):
        fetch_file(f"{web.url}/weights.pt", tmp_path / "w.pt")
    web.behaviour.cut_after.clear()
    web.behaviour.files["/weights.pt"], web.behaviour.etag = CONTENT[::-1], '"v2"'
    fetch_file(f"{web.url}/weights.pt", tmp_path / "w.pt")
    assert (tmp_path / "w.pt").read_bytes() == CONTENT[::-1]


def test_without_mark_and_digest_nothing_is_resumed(web, tmp_path):
    web.behaviour.etag = None
    web.behaviour.cut_after = [3_000_000]
    fetch_file(f"{web.url}/weights.pt", tmp_path / "w.pt")
    assert all("Range" not in request for request in web.behaviour.requests)
    assert (tmp_path / "w.pt").read_bytes() == CONTENT


def test_a_wrong_digest_leaves_nothing_and_keeps_what_was_there(web, tmp_path):
    target = tmp_path / "w.pt"
    target.write_bytes(b"mine")
    with pytest.raises(WeightsError, match=DIGEST) as caught:
        fetch_file(f"{web.url}/weights.pt", target, sha256="0" * 64)
    assert "do not use it" in str(caught.value)
    assert target.read_bytes() == b"mine"
    assert leftovers(tmp_path) == ["w.pt"]


def test_another_size_than_expected_is_refused_before_the_transfer(web, tmp_path):
    web.behaviour.files["/weights.pt"] = b"<html>Please sign in to the proxy</html>"
    with pytest.raises(WeightsError, match="offers 40 bytes"):
        fetch_file(f"{web.url}/weights.pt", tmp_path / "w.pt", size=len(CONTENT), sha256=DIGEST)
    assert leftovers(tmp_path) == []


def test_a_part_longer_than_the_file_is_thrown_away(web, tmp_path):
    (tmp_path / "w.pt.part").write_bytes(CONTENT + b"surplus")
    fetch_file(f"{web.url}/weights.pt", tmp_path / "w.pt", sha256=DIGEST)
    assert (tmp_path / "w.pt").read_bytes() == CONTENT


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(web, tmp_path):
    web.behaviour.fail_with = [503, 429]
    fetch_file(f"{web.url}/weights.pt", tmp_path / "w.pt", sha256=DIGEST)
    assert len(web.behaviour.requests) == 3
    with pytest.raises(WeightsError, match="404"):
        fetch_file(f"{web.url}/other.pt", tmp_path / "o.pt")
    assert len(web.behaviour.requests) == 4


def test_no_connection_names_the_address_and_the_way_out(web, tmp_path):
    with pytest.raises(WeightsError, match="copy the file to") as caught:
        fetch_file("http://127.0.0.1:1/weights.pt", tmp_path / "w.pt")
    assert "no connection to 127.0.0.1" in str(caught.value)
    assert "http://127.0.0.1:1/weights.pt" in str(caught.value)


def test_a_full_disk_is_said_before_the_transfer(web, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda folder: transfer.shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(WeightsError, match="needs 5 MB more"):
        fetch_file(f"{web.url}/weights.pt", tmp_path / "w.pt")
    assert not (tmp_path / "w.pt.part").exists()
