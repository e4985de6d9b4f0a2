"""Downloaded weights can be deleted; what people have put there, what is in use and what is bundled stay."""

import hashlib
import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from SSLSegLib.errors import WeightsError
from SSLSegLib.weights.commands import app
from SSLSegLib.weights.download import download_weights
from SSLSegLib.weights.removal import delete_weights, installed_weights
from SSLSegLib.weights.store import read_pins

CONTENT = b"weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def example(web, example_catalogue):
    web.behaviour.files["/example.safetensors"] = CONTENT
    example_catalogue({"example.safetensors": (len(CONTENT), DIGEST)})
    return "example"


def origins(folder=None):
    return {each.entry.name: (each.size, each.origin) for each in installed_weights(folder)}


def test_a_download_is_listed_with_its_size_and_deleted_with_what_was_noted_of_it(example, weights_folder):
    download_weights(example, consent=True)
    (weights_folder / "notes.txt").write_text("mine")
    assert origins() == {"example": (len(CONTENT), "downloaded")}
    assert delete_weights(example) == len(CONTENT)
    assert [path.name for path in weights_folder.iterdir()] == ["notes.txt"]
    assert origins() == {}


def test_a_folder_of_several_files_goes_but_not_what_somebody_has_put_into_it(web, example_catalogue, weights_folder):
    web.behaviour.files.update({"/one.bin": b"one", "/two.bin": b"two"})
    example_catalogue({"one.bin": (3, None), "two.bin": (3, None)})
    download_weights("example", consent=True)
    (weights_folder / "example" / "notes.txt").write_text("mine")
    assert delete_weights("example") == 6
    assert [path.name for path in (weights_folder / "example").iterdir()] == ["notes.txt"]
    (weights_folder / "example" / "notes.txt").unlink()
    download_weights("example", consent=True)
    delete_weights("example")
    assert not (weights_folder / "example").exists()


def test_what_a_broken_off_download_has_left_is_deleted(example, weights_folder):
    (weights_folder / "example.safetensors.part").write_bytes(b"half")
    assert delete_weights(example) == 4
    assert not list(weights_folder.iterdir())


def test_a_file_that_was_copied_into_another_folder_stays(example, tmp_path):
    own = tmp_path / "example.safetensors"
    own.write_bytes(CONTENT)
    assert origins(tmp_path) == {"example": (len(CONTENT), "own")}
    with pytest.raises(WeightsError, match="not downloaded by SSLSeg"):
        delete_weights(example, tmp_path)
    assert own.read_bytes() == CONTENT


def test_a_download_into_another_folder_is_deleted_there_and_not_in_the_default_one(example, weights_folder, tmp_path):
    download_weights(example, consent=True)
    download_weights(example, tmp_path, consent=True)
    delete_weights(example, tmp_path)
    assert not list(tmp_path.iterdir())
    assert (weights_folder / "example.safetensors").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_to_a_file_elsewhere_stays(example, weights_folder, tmp_path):
    (tmp_path / "elsewhere").write_bytes(CONTENT)
    (weights_folder / "example.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WeightsError, match="not downloaded by SSLSeg"):
        delete_weights(example)
    assert (weights_folder / "example.safetensors").is_symlink()


def test_another_file_under_that_name_stays(example, weights_folder):
    (weights_folder / "example.safetensors").write_bytes(b"my own training")
    with pytest.raises(WeightsError, match="not downloaded by SSLSeg"):
        delete_weights(example)


def test_bundled_weights_and_absent_ones_are_refused(weights_folder):
    with pytest.raises(WeightsError, match="comes with SSLSeg"):
        delete_weights("sslseg-small")
    with pytest.raises(WeightsError, match="nothing of MedSAM2_latest"):
        delete_weights("MedSAM2_latest")


def test_weights_that_a_running_job_uses_stay_until_it_has_ended(example, weights_folder, tmp_path):
    path = download_weights(example, consent=True)
    job = tmp_path / "job"
    job.mkdir()
    (job / "manifest.json").write_text(json.dumps({"inputs": {"weights": {"path": str(path)}}}))
    waits = "import sys; print('up', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", waits, "-m", "SSLSegLib.jobs.worker", str(job)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        worker.stdout.readline()
        with pytest.raises(WeightsError, match="in use by the job in") as caught:
            delete_weights(example)
        assert str(job) in str(caught.value)
        worker.communicate()
    assert path.is_file()
    delete_weights(example)
    assert not path.exists()


def test_the_command_asks_deletes_and_says_how_much_is_free(example, weights_folder):
    run = CliRunner(env={"COLUMNS": "200"})
    download_weights(example, consent=True)
    assert "Nothing was deleted" in run.invoke(app, ["delete", "example"], input="n\n").output
    assert (weights_folder / "example.safetensors").is_file()
    done = run.invoke(app, ["delete", "example", "--yes"])
    assert done.exit_code == 0, done.output
    assert "freed" in done.output
    again = run.invoke(app, ["delete", "example", "--yes"])
    assert again.exit_code == 2
    assert read_pins(weights_folder) == {}


def test_the_list_tells_bundled_downloaded_own_and_incomplete_ones_apart(example, weights_folder, tmp_path):
    run = CliRunner(env={"COLUMNS": "200"})
    (tmp_path / "example.safetensors").write_bytes(CONTENT)
    assert "your own copy" in run.invoke(app, ["list", "--folder", str(tmp_path)]).output
    (weights_folder / "example.safetensors.part").write_bytes(b"half")
    assert "incomplete" in run.invoke(app, ["list"]).output
