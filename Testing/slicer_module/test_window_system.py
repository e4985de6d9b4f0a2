"""The panel in a window of a real X server; all other tests draw offscreen."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from helpers_module import MODULE

SCRIPT = MODULE.parents[1] / "Testing" / "slicerhost" / "screenshot.py"
SIZE = (1400, 1000)


@pytest.mark.skipif(shutil.which("xvfb-run") is None, reason="Xvfb is not installed")
def test_on_an_x_server_the_screen_shows_the_panel_and_a_result_in_the_four_views(finished_job, tmp_path):
    from PIL import Image

    picture = tmp_path / "panel.png"
    on_xvfb = ["xvfb-run", "--auto-servernum", "--server-args=-screen 0 1920x1280x24"]
    script = [sys.executable, str(SCRIPT), str(picture), "--job", str(finished_job)]
    size = [f"--width={SIZE[0]}", f"--height={SIZE[1]}"]
    environment = {**os.environ, "QT_QPA_PLATFORM": "xcb"}
    ended = subprocess.run(
        [*on_xvfb, *script, *size], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    if "no Qt platform plugin could be initialized" in ended.stdout + ended.stderr:
        pytest.skip("libraries of Qt's xcb plugin are not installed (Testing/slicerhost/README.md names them)")
    assert ended.returncode == 0, ended.stderr
    assert "by the platform xcb" in ended.stdout
    assert "Qt: " not in ended.stderr, ended.stderr
    shown = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    assert shown.shape == (*SIZE[::-1], 3)
    panel, views = shown[:, :400], shown[:, 520:]
    assert (panel.min(axis=-1) > 200).mean() > 0.5, "a light panel, not the server's black ground"
    assert len(np.unique(panel[..., 0])) > 50, "with letters on it"
    for name, view in (("axial", views[:450, :400]), ("3D", views[:450, -400:]), ("coronal", views[-450:, :400])):
        assert len(np.unique(view.reshape(-1, 3), axis=0)) > 100, f"{name}: nothing is drawn"
