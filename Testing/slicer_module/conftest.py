"""The module under test, unmodified in the stand-in for Slicer, on a tiny cohort with tiny random weights."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

TESTING = Path(__file__).resolve().parent.parent
ROOT = TESTING.parent
for folder in (TESTING, ROOT / "SSLSeg", Path(__file__).resolve().parent):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from helpers_module import MODULE, quiet  # noqa: E402
from slicerhost.fixtures import host, slicer_host  # noqa: E402, F401 - pytest needs the names


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    """A cohort of two labelled and two unlabelled cases, and weights that compute but know nothing."""
    import small_cohort

    folder = tmp_path_factory.mktemp("inputs")
    return SimpleNamespace(
        cohort=small_cohort.write_small_cohort(folder / "cohort"),
        weights=small_cohort.write_random_weights(folder / "tiny.safetensors"),
    )


@pytest.fixture
def panel(host, tmp_path):  # noqa: F811
    """The module's widget, just opened in an empty scene, its jobs in a temporary folder."""
    widget = host.load_module(MODULE)
    widget.ui.outputEdit.setCurrentPath(str(tmp_path / "jobs"))
    return widget


@pytest.fixture
def loaded(host, panel, inputs):  # noqa: F811
    """The panel with the cohort's cases and the weights chosen: all but the click."""
    panel.session.parameters.weights = str(inputs.weights)
    panel.session.parameters.writeReport = False
    panel.casesSection.load(inputs.cohort)
    quiet(host, panel)
    return panel


@pytest.fixture(scope="session")
def batch_job(slicer_host, inputs, tmp_path_factory):  # noqa: F811
    """A finished job: the manifest is made in the scene, the run is the batch script under plain Python."""
    import slicer
    from SSLSegPanel.prepare import finish

    slicer_host.reset()
    widget = slicer_host.load_module(MODULE)
    folder = tmp_path_factory.mktemp("batch")
    finish(widget.logic.loadSteps(inputs.cohort))
    run = widget.logic.prepare(folder=folder / "prepared", weights=str(inputs.weights), report=False)
    slicer_host.unload_module("SSLSeg")
    slicer.mrmlScene.Clear(0)
    manifest = run.job.folder / "manifest.json"
    script = ROOT / "SSLSeg" / "Scripts" / "batch.py"
    command = [sys.executable, str(script), str(manifest), "--out", str(folder / "job")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    return folder / "job"


@pytest.fixture
def finished_job(batch_job, tmp_path):
    """A copy of the finished job, to review and damage."""
    return Path(shutil.copytree(batch_job, tmp_path / "finished"))


@pytest.fixture
def reviewing(host, loaded, finished_job):  # noqa: F811
    """The panel with the results of the finished job."""
    loaded.ui.attachEdit.setCurrentPath(str(finished_job))
    loaded.ui.attachButton.click()
    host.wait_until(lambda: loaded.ui.resultsTable.rowCount == 2, 60)
    host.wait_until(lambda: loaded.runSection.state == "idle", 60)
    quiet(host, loaded)
    return loaded
