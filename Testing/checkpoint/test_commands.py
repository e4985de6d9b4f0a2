"""The command trains from nothing to weights that load."""

import typer
from typer.testing import CliRunner

from SSLSegLib.checkpoint.commands import train_checkpoint
from SSLSegLib.weights.loading import load_sam2


def test_train_checkpoint_ends_with_weights_that_load(tmp_path):
    app = typer.Typer()
    app.command()(train_checkpoint)
    small = ["--steps", "1", "--batch", "1", "--image-size", "64", "--workers", "0", "--validation", "1"]
    done = CliRunner().invoke(app, ["--out", str(tmp_path / "training"), "--device", "cpu", *small])
    assert done.exit_code == 0, done.output
    assert "unseen subjects" in done.output
    loaded = load_sam2(tmp_path / "training" / "sslseg-small.safetensors")
    assert loaded.image_size == 64
    assert loaded.configuration_from == "beside the file"


def test_train_checkpoint_refuses_an_unknown_device(tmp_path):
    app = typer.Typer()
    app.command()(train_checkpoint)
    done = CliRunner().invoke(app, ["--out", str(tmp_path), "--device", "quantum"])
    assert done.exit_code != 0
    assert "quantum" in str(done.exception)


def test_train_checkpoint_leaves_a_folder_of_somebody_else_alone(tmp_path):
    app = typer.Typer()
    app.command()(train_checkpoint)
    (tmp_path / "mine.txt").write_text("mine")
    done = CliRunner().invoke(app, ["--out", str(tmp_path), "--steps", "1"])
    assert "other files" in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    done = CliRunner().invoke(app, ["--out", str(tmp_path / "new"), "--image-size", "100"])
    assert "multiple of 32" in str(done.exception)
