"""Downloading entries of a catalogue from a real server: consent, several files, pins, files already there."""

import hashlib
import json

import pytest

from SSLSegLib.errors import WeightsError
from SSLSegLib.weights.download import download_weights
from SSLSegLib.weights.store import find_weights, verify_weights

WEIGHTS, SETTINGS = b"weights" * 1000, b'{"hidden_size": 4}'


def digest(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def served(web):
    web.behaviour.files.update({"/model.safetensors": WEIGHTS, "/config.json": SETTINGS})


def test_nothing_is_asked_of_the_server_without_consent(web, example_catalogue, weights_folder):
    example_catalogue({"model.safetensors": (len(WEIGHTS), digest(WEIGHTS))})
    with pytest.raises(WeightsError, match="licence has not been accepted") as caught:
        download_weights("example")
    assert "CC-BY-4.0" in str(caught.value)
    assert "For tests only." in str(caught.value)
    assert "--yes" in str(caught.value)
    assert web.behaviour.requests == []
    assert list(weights_folder.iterdir()) == []


def test_a_single_file_lies_in_the_weights_folder_under_its_name(example_catalogue, weights_folder):
    example_catalogue({"model.safetensors": (len(WEIGHTS), digest(WEIGHTS))})
    path = download_weights("example", consent=True)
    assert path == weights_folder / "model.safetensors" == find_weights("example")
    assert [found.outcome for found in verify_weights("example")] == ["ok"]


def test_several_files_lie_in_a_folder_of_the_entrys_name(example_catalogue, tmp_path):
    example_catalogue({"model.safetensors": (len(WEIGHTS), digest(WEIGHTS)), "config.json": (None, None)})
    path = download_weights("example", tmp_path / "mine", consent=True)
    assert path == tmp_path / "mine" / "example" == find_weights("example", tmp_path / "mine")
    assert {file.name for file in path.iterdir()} == {"model.safetensors", "config.json", "pins.json"}


def test_an_unknown_digest_is_pinned_by_the_first_download_and_said_so(example_catalogue, weights_folder):
    example_catalogue({"config.json": (None, None)})
    warnings = []
    download_weights(
        "example",
        consent=True,
        progress=lambda event, **fields: warnings.append(fields["message"]) if event == "warning" else None,
    )
    assert len(warnings) == 1
    assert digest(SETTINGS) in warnings[0]
    pins = json.loads((weights_folder / "pins.json").read_text())
    assert pins["config.json"]["sha256"] == digest(SETTINGS)
    assert [found.outcome for found in verify_weights("example")] == ["pinned"]
    (weights_folder / "config.json").write_bytes(b"changed later")
    assert [found.outcome for found in verify_weights("example")] == ["wrong"]


def test_only_what_is_missing_is_fetched_and_what_is_there_needs_no_consent(web, example_catalogue, weights_folder):
    example_catalogue({"model.safetensors": (len(WEIGHTS), digest(WEIGHTS)), "config.json": (None, None)})
    (weights_folder / "example").mkdir()
    (weights_folder / "example" / "model.safetensors").write_bytes(WEIGHTS)
    download_weights("example", consent=True)
    assert [request["path"] for request in web.behaviour.requests] == ["/config.json"]
    download_weights("example")
    assert len(web.behaviour.requests) == 1


def test_another_file_under_that_name_is_left_alone(web, example_catalogue, weights_folder):
    example_catalogue({"model.safetensors": (len(WEIGHTS), digest(WEIGHTS))})
    (weights_folder / "model.safetensors").write_bytes(b"the user's own")
    with pytest.raises(WeightsError, match="is there already, but it is another file"):
        download_weights("example", consent=True)
    assert (weights_folder / "model.safetensors").read_bytes() == b"the user's own"
    assert web.behaviour.requests == []


def test_a_wrong_digest_from_the_server_installs_nothing(example_catalogue, weights_folder):
    example_catalogue({"model.safetensors": (len(WEIGHTS), digest(b"something else"))})
    with pytest.raises(WeightsError, match="do not use it"):
        download_weights("example", consent=True)
    assert list(weights_folder.iterdir()) == []
