"""Weights by a click, from a server on this machine that stands in for the publisher's."""

import http.server
import threading
from typing import ClassVar

import pytest
import slicer
from helpers_module import texts

CONTENT = b"weights that are only fetched here, never loaded"


class FakePublisher(http.server.BaseHTTPRequestHandler):
    """Serves one small file under any address, and remembers what was asked for."""

    asked: ClassVar[list] = []

    def do_GET(self):
        self.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *arguments):
        """Say nothing."""


@pytest.fixture
def publisher(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), FakePublisher)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    FakePublisher.asked.clear()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield FakePublisher
    server.shutdown()
    server.server_close()


@pytest.fixture
def wanting(panel, tmp_path, monkeypatch):
    """The panel with weights chosen that are not on this computer, and whose size is not published."""
    monkeypatch.setenv("SSLSEG_WEIGHTS", str(tmp_path / "none"))
    panel.ui.weightsFolderEdit.setCurrentPath(str(tmp_path / "weights"))
    panel.session.parameters.weights = "MedSAM2_2411"
    panel.methodSection.refresh()
    assert "not on this computer" in panel.ui.weightsLabel.text
    assert panel.ui.downloadButton.enabled
    return panel


def test_the_licence_is_shown_before_anything_is_fetched_and_no_is_an_answer(wanting, publisher, monkeypatch):
    asked = []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, *_: asked.append(text))  # None: no
    wanting.ui.downloadButton.click()
    assert "Licence:" in asked[0]
    assert "MedSAM2_2411" in asked[0]
    assert publisher.asked == []
    assert not wanting.methodSection.children.busy


def test_a_click_and_a_yes_fetch_the_weights_into_the_chosen_folder(host, wanting, publisher, monkeypatch, tmp_path):
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda *_: True)
    wanting.ui.downloadButton.click()
    assert "Downloading MedSAM2_2411" in wanting.ui.weightsLabel.text
    host.wait_until(lambda: not wanting.methodSection.children.busy, 60)
    host.process_events()
    assert any(path.endswith("MedSAM2_2411.pt") for path in publisher.asked)
    (fetched,) = (tmp_path / "weights").rglob("MedSAM2_2411.pt")
    assert fetched.read_bytes() == CONTENT
    assert "ready" in wanting.ui.weightsLabel.text
    assert not wanting.ui.downloadButton.enabled


def test_a_download_that_fails_is_told_and_can_be_tried_again(host, wanting, monkeypatch):
    said = []
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda *_: True)
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: said.append(text))
    wanting.ui.downloadButton.click()
    host.wait_until(lambda: said, 90)
    assert "could not be downloaded" in said[0]
    assert "Licence" not in said[0]  # that was said before
    assert "Traceback" not in said[0]
    assert wanting.ui.downloadButton.enabled


def installed(panel):
    """What the table of weights says, once it has looked."""
    return texts(panel.ui.installedTable)


@pytest.fixture
def downloaded(host, wanting, publisher, monkeypatch):
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda *_: True)
    wanting.ui.downloadButton.click()
    host.wait_until(lambda: "ready" in wanting.ui.weightsLabel.text, 60)
    host.wait_until(lambda: len(installed(wanting)) == 2 and not wanting.methodSection.installed.work.busy, 60)
    return wanting


def test_weights_on_this_computer_are_listed_with_size_and_origin(downloaded):
    rows = {row[0]: row[1:] for row in installed(downloaded)}
    assert rows["sslseg-small"][1] == "SSLSeg"
    assert rows["MedSAM2_2411"] == ["0 MB", "download"]


def choose(panel, name):
    panel.ui.installedTable.selectRow([row[0] for row in installed(panel)].index(name))


def test_downloaded_weights_are_deleted_after_a_yes_and_can_be_fetched_again(host, downloaded, monkeypatch, tmp_path):
    path = tmp_path / "weights" / "MedSAM2_2411.pt"
    assert path.is_file()
    choose(downloaded, "MedSAM2_2411")
    asked = []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, *_: asked.append(text))  # None: no
    downloaded.ui.deleteWeightsButton.click()
    assert "MedSAM2_2411" in asked[0]
    assert path.is_file()
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda *_: True)
    downloaded.ui.deleteWeightsButton.click()
    host.wait_until(lambda: len(installed(downloaded)) == 1, 60)
    assert not path.exists()
    assert "not on this computer" in downloaded.ui.weightsLabel.text
    assert downloaded.ui.downloadButton.enabled


def test_weights_that_ship_with_the_module_or_were_copied_by_hand_cannot_be_deleted(host, panel, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "MedSAM2_2411.pt").write_bytes(CONTENT)
    panel.ui.weightsFolderEdit.setCurrentPath(str(folder))
    host.wait_until(lambda: len(installed(panel)) == 2, 60)
    assert "Select weights" in panel.ui.deleteWeightsButton.toolTip
    choose(panel, "sslseg-small")
    assert not panel.ui.deleteWeightsButton.enabled
    assert "come with SSLSeg" in panel.ui.deleteWeightsButton.toolTip
    choose(panel, "MedSAM2_2411")
    assert not panel.ui.deleteWeightsButton.enabled
    assert "not downloaded" in panel.ui.deleteWeightsButton.toolTip
    assert panel.ui.openWeightsButton.enabled


def test_weights_in_use_stay_and_the_job_is_named(host, downloaded, monkeypatch):
    from SSLSegLib.weights import removal

    said = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: said.append(text))
    monkeypatch.setattr(removal, "_user_of", lambda location: "/jobs/run-1/job")
    choose(downloaded, "MedSAM2_2411")
    downloaded.ui.deleteWeightsButton.click()
    host.wait_until(lambda: said, 60)
    assert "/jobs/run-1/job" in said[0]
    host.wait_until(lambda: len(installed(downloaded)) == 2, 60)
