"""The ``weights`` commands as a user runs them."""

import hashlib

import pytest
from typer.testing import CliRunner

from SSLSegLib.weights.commands import app

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def run():
    return lambda *words, **rest: CliRunner(env={"COLUMNS": "200"}).invoke(app, list(words), **rest)


@pytest.fixture
def example(web, example_catalogue):
    web.behaviour.files["/example.safetensors"] = CONTENT
    example_catalogue({"example.safetensors": (len(CONTENT), DIGEST)})


def test_list_shows_every_entry_with_size_licence_and_whether_it_is_here(run):
    output = run("list").output
    for text in ("sslseg-small", "MedSAM2_latest", "156 MB", "CC-BY-SA-4.0", "Qwen3-VL-4B-Instruct", "8.9 GB"):
        assert text in output


def test_download_shows_the_licence_and_needs_a_yes(run, example, web, weights_folder):
    refused = run("download", "example", input="n\n")
    assert refused.exit_code == 2
    assert "CC-BY-4.0" in refused.output
    assert "Please cite" in refused.output
    assert web.behaviour.requests == []
    done = run("download", "example", "--yes")
    assert done.exit_code == 0, done.output
    assert (weights_folder / "example.safetensors").read_bytes() == CONTENT


def test_download_into_a_folder_then_where_and_verify_there(run, example, tmp_path):
    assert run("download", "example", "-y", "--folder", str(tmp_path)).exit_code == 0
    assert run("where", "example", "--folder", str(tmp_path)).output.strip() == str(tmp_path / "example.safetensors")
    verified = run("verify", "example", "--folder", str(tmp_path))
    assert verified.exit_code == 0
    assert "ok" in verified.output


def test_verify_fails_on_a_wrong_file_and_on_a_missing_name(run, example, weights_folder):
    assert run("verify", "example").exit_code == 1
    assert "No weights are in" in run("verify").output
    (weights_folder / "example.safetensors").write_bytes(CONTENT[:-1])
    result = run("verify")
    assert result.exit_code == 1
    assert "wrong file" in result.output


def test_where_without_a_name_is_the_folder_and_errors_are_sentences(run, weights_folder):
    assert run("where").output.strip() == str(weights_folder)
    missing = run("where", "MedSAM2_latest")
    assert missing.exit_code == 2
    assert "weights download MedSAM2_latest" in missing.output
    assert "Traceback" not in missing.output
    assert "There are no weights named 'nonsense'" in run("download", "nonsense").output
