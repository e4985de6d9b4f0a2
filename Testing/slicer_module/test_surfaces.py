"""Surfaces are made in a child process: what comes of it is Slicer's own, and Slicer lives whatever becomes of it."""

import logging
import time
from pathlib import Path
from unittest import mock

import numpy as np
import psutil
import pytest
import slicer
from helpers_module import beating, block, draw, longest_step, quiet

from SSLSegLib.errors import SSLSegError

SURFACE = "Closed surface"


@pytest.fixture
def drawn(reviewing):
    """A case with two structures that a surface can be made of."""
    reviewing.ui.resultsTable.selectRow(0)
    case = reviewing.resultsSection.current()
    draw(case, "class 1", block(case, 2, 9))
    draw(case, "class 2", block(case, 10, 14))
    return case


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch):
    """The scans of these tests are small; they stand for large ones."""
    from SSLSegPanel import surfaces

    monkeypatch.setattr(surfaces, "_SMALL", 0)


@pytest.fixture
def sleeping(monkeypatch, tmp_path):
    """A child that makes nothing and does not end."""
    from SSLSegPanel import surfaces

    script = tmp_path / "sleep.py"
    script.write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setattr(surfaces, "_SCRIPT", script)
    return script


@pytest.fixture
def no_fallback(monkeypatch):
    """Only the child may make surfaces."""
    from SSLSegPanel import surfaces

    def refused(node):
        raise AssertionError("The child has not made the surfaces.")
        yield

    monkeypatch.setattr(surfaces, "_made_here", refused)


@pytest.fixture(autouse=True)
def tidy():
    """Each test leaves no child and no file."""
    yield
    assert not children()
    assert not left()


def children():
    """Processes that make surfaces, or stand for them."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if any(Path(word).name in ("make_surfaces.py", "sleep.py") for word in words):
            found.append(process)
    return found


def left():
    """Folders of surfaces that are there now."""
    return sorted(Path(slicer.app.temporaryPath).glob("sslseg-surfaces-*"))


def surfaces(node):
    """Segment id -> points and cells of its surface."""
    from vtk.util.numpy_support import vtk_to_numpy

    segmentation, found = node.GetSegmentation(), {}
    for index in range(segmentation.GetNumberOfSegments()):
        surface = segmentation.GetNthSegment(index).GetRepresentation(SURFACE)
        points = np.zeros((0, 3))
        cells = np.zeros(0)
        if surface.GetNumberOfPoints():
            points = vtk_to_numpy(surface.GetPoints().GetData())
            cells = vtk_to_numpy(surface.GetPolys().GetConnectivityArray())
        found[segmentation.GetNthSegmentID(index)] = points, cells
    return found


def made_at_once(node):
    """The surfaces that Slicer's one call makes of a copy."""
    copy = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    copy.GetSegmentation().DeepCopy(node.GetSegmentation())
    copy.GetSegmentation().RemoveRepresentation(SURFACE)
    copy.CreateClosedSurfaceRepresentation()
    found = surfaces(copy)
    slicer.mrmlScene.RemoveNode(copy)
    return found


def same(one, other):
    return one.keys() == other.keys() and all(
        np.array_equal(mine, theirs) for name in one for mine, theirs in zip(one[name], other[name], strict=True)
    )


def shown(node):
    return bool(node.GetDisplayNode().GetVisibility3D()) and node.GetSegmentation().ContainsRepresentation(SURFACE)


def test_surfaces_of_a_child_are_those_that_slicer_makes_at_once(drawn, no_fallback):
    from SSLSegPanel.prepare import finish
    from SSLSegPanel.surfaces import has_surface, surface_steps

    expected = made_at_once(drawn.result)
    finish(surface_steps(drawn.result))
    assert all(len(points) for points, cells in expected.values())
    assert same(surfaces(drawn.result), expected)
    assert has_surface(drawn.result)
    assert list(surface_steps(drawn.result)) == []  # not twice


def test_surfaces_that_are_smoothed_together_and_empty_ones_are_slicers_too(drawn, no_fallback):
    from SSLSegPanel.prepare import finish
    from SSLSegPanel.surfaces import surface_steps

    draw(drawn, "class 2", 0 * block(drawn, 2, 9))
    drawn.result.GetSegmentation().SetConversionParameter("Joint smoothing", "1")
    expected = made_at_once(drawn.result)
    finish(surface_steps(drawn.result))
    assert same(surfaces(drawn.result), expected)


@pytest.mark.parametrize("trouble", ["killed", "hangs", "fails", "no interpreter"])
@pytest.mark.parametrize("joint", [False, True])
def test_surfaces_are_made_without_a_child_where_it_does_not_make_them(
    drawn, sleeping, monkeypatch, caplog, trouble, joint
):
    from SSLSegPanel import surfaces as module

    if joint:
        drawn.result.GetSegmentation().SetConversionParameter("Joint smoothing", "1")
    if trouble == "hangs":
        monkeypatch.setattr(module, "_LIMIT", 0.5)
    elif trouble == "fails":
        sleeping.write_text("import sys\nsys.exit('no classes here')\n")
    elif trouble == "no interpreter":
        monkeypatch.setenv("SSLSEG_PYTHON", str(sleeping.parent / "none"))
    expected = made_at_once(drawn.result)
    with caplog.at_level(logging.WARNING):
        for pause in module.surface_steps(drawn.result):
            if trouble == "killed" and children():
                children()[0].kill()
            time.sleep(pause or 0)
    assert same(surfaces(drawn.result), expected)
    assert "not made in a child process" in caplog.text


def test_small_segments_are_not_worth_a_child(drawn, monkeypatch):
    from SSLSegPanel import surfaces as panel_surfaces

    monkeypatch.setattr(panel_surfaces, "_SMALL", drawn.volume.GetImageData().GetNumberOfPoints())
    asked = mock.Mock(side_effect=panel_surfaces._made_aside)
    monkeypatch.setattr(panel_surfaces, "_made_aside", asked)
    expected = made_at_once(drawn.result)
    pauses = list(panel_surfaces.surface_steps(drawn.result))
    assert not asked.called
    assert len(pauses) == 2
    assert same(surfaces(drawn.result), expected)


def test_without_a_child_there_is_a_pause_before_each_structure(drawn):
    from SSLSegPanel.surfaces import _made_here

    expected = made_at_once(drawn.result)
    assert sum(1 for _ in _made_here(drawn.result)) == drawn.result.GetSegmentation().GetNumberOfSegments() == 2
    assert same(surfaces(drawn.result), expected)


def test_what_is_drawn_while_a_child_works_is_in_the_surfaces(drawn, no_fallback):
    from SSLSegPanel.surfaces import surface_steps

    seen = set()
    for pause in surface_steps(drawn.result):
        if not seen and children():
            draw(drawn, "class 1", block(drawn, 5, 8))
        seen |= {process.pid for process in children()}
        time.sleep(pause or 0)
    assert len(seen) == 2  # the first for nothing
    assert same(surfaces(drawn.result), made_at_once(drawn.result))


def test_what_is_drawn_without_a_child_is_in_the_surfaces(drawn):
    from SSLSegPanel.surfaces import _made_here

    steps = _made_here(drawn.result)
    next(steps)
    next(steps)  # the first is made
    draw(drawn, "class 1", block(drawn, 5, 8))
    list(steps)
    assert same(surfaces(drawn.result), made_at_once(drawn.result))


@pytest.mark.parametrize("child", [False, True])
def test_a_segmentation_that_is_deleted_while_its_surface_is_made_is_told(drawn, sleeping, child):
    from SSLSegPanel.surfaces import _made_here, surface_steps

    node = drawn.result
    steps = surface_steps(node) if child else _made_here(node)
    next(steps)
    while child and not children():
        time.sleep(next(steps) or 0)
    slicer.mrmlScene.RemoveNode(node)
    with pytest.raises(SSLSegError, match="deleted"):
        list(steps)


def test_a_surface_that_is_no_longer_wanted_ends_its_child(host, reviewing, drawn, sleeping):
    reviewing.ui.show3DButton.click()
    host.wait_until(children, 30)
    reviewing.ui.show3DButton.click()
    assert not children()
    assert not left()
    quiet(host, reviewing)
    assert not shown(drawn.result)


def test_a_surface_that_is_wanted_again_is_shown(host, reviewing, drawn, no_fallback):
    for _ in range(3):
        reviewing.ui.show3DButton.click()
        host.process_events()
    quiet(host, reviewing)
    assert shown(drawn.result)


def test_a_scene_that_is_closed_while_a_surface_is_made_ends_it_quietly(
    host, reviewing, drawn, sleeping, finished_job, inputs, monkeypatch
):
    from SSLSegPanel import surfaces as module

    said = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: said.append(text))
    real = Path(module.__file__).resolve().parent.parent / "Scripts" / "make_surfaces.py"
    reviewing.ui.show3DButton.click()
    host.wait_until(children, 30)
    slicer.mrmlScene.Clear(0)
    assert not children()
    assert not left()
    quiet(host, reviewing)
    assert not reviewing.ui.show3DButton.checked
    monkeypatch.setattr(module, "_SCRIPT", real)
    reviewing.casesSection.load(inputs.cohort)
    quiet(host, reviewing)
    reviewing.ui.attachEdit.setCurrentPath(str(finished_job))
    reviewing.ui.attachButton.click()
    host.wait_until(lambda: reviewing.ui.resultsTable.rowCount == 2, 60)
    quiet(host, reviewing)
    reviewing.ui.resultsTable.selectRow(0)
    reviewing.ui.show3DButton.click()
    quiet(host, reviewing)
    assert shown(reviewing.resultsSection.current().result)
    assert not said


def test_a_panel_that_is_torn_down_leaves_no_child(host, reviewing, drawn, sleeping):
    reviewing.ui.show3DButton.click()
    host.wait_until(children, 30)
    host.unload_module("SSLSeg")
    assert not children()
    assert not left()


def test_a_child_ends_with_a_slicer_that_is_killed(tmp_path):
    """By its arguments: a parent that is not there."""
    import subprocess

    from SSLSegPanel import surfaces as module
    from SSLSegPanel.children import environment, python_command

    ended = subprocess.run(
        python_command([str(module._SCRIPT), str(tmp_path / "none"), "999999999", "1.0"]),
        env=environment(),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1
    assert b"Traceback" not in ended.stderr  # it ended before it looked for its folder


def test_slicer_lives_while_surfaces_of_large_noise_are_made_shown_and_centred(
    host, reviewing, drawn, no_fallback, monkeypatch
):
    from slicerhost.views import ThreeDView
    from SSLSegPanel.surfaces import surface_steps

    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    values = np.random.default_rng(0).random((40, 160, 160))
    slicer.util.updateVolumeFromArray(volume, values)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetVisibility3D(False)
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for name, noise in (("speckles", values < 0.1), ("more of them", values > 0.95)):
        identifier = node.GetSegmentation().AddEmptySegment(name)
        slicer.util.updateSegmentBinaryLabelmapFromArray(noise.astype(np.uint8), node, identifier, volume)
    host.process_events()  # the views know it
    node.GetDisplayNode().SetVisibility(False)  # drawn by the stand-in in software, which is not what is measured
    with beating(time.thread_time) as beats:
        reviewing.resultsSection.steps.start(surface_steps(node))
        quiet(host, reviewing, 300)
    assert all(len(points) > 200_000 for points, cells in surfaces(node).values())
    assert len(beats) > 20
    assert longest_step(beats) < 0.1
    drawings = []
    monkeypatch.setattr(ThreeDView, "_draw", lambda view: drawings.append(view))
    began = time.thread_time()
    node.GetDisplayNode().SetVisibility(True)
    node.GetDisplayNode().SetVisibility3D(True)
    reviewing.logic.centre3D()
    assert time.thread_time() - began < 0.1
    host.process_events()
    assert drawings  # asked for, and done when the events are looked at
    renderer = slicer.app.layoutManager().threeDWidget(0).threeDView().renderWindow().GetRenderers().GetFirstRenderer()
    assert renderer.GetActiveCamera().GetFocalPoint() == pytest.approx((80, 80, 20), abs=3)
