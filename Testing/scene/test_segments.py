"""Segments in the grid of the volume are copied as they stand, and what comes out is what Slicer itself makes."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from scene_examples import GRIDS, random_volume

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.scene import segments
from SSLSegLib.scene.segmentations import label_to_segmentation_node, read_segments_steps, segmentation_to_label
from SSLSegLib.scene.volumes import image_to_node, node_voxels, volume_to_node, vtk_matrix
from SSLSegLib.scene.voxels import ready_image

CLASSES = (
    SegmentClass(value=1, name="a", color=(255, 0, 0)),
    SegmentClass(value=2, name="b", color=(0, 255, 0)),
    SegmentClass(value=5, name="c", color=(0, 0, 255)),
)


def labelled(geometry, seed=0):
    rng = np.random.default_rng(seed)
    return rng.choice(np.array([0, 1, 2, 5], np.uint8), geometry.shape)


def extended(image, by):
    """Another layer of the same grid whose extent is larger (or, by less than 0, smaller) on every side."""
    import slicer
    import vtk

    pad = vtk.vtkImageConstantPad()
    pad.SetInputData(image)
    low_high = list(image.GetExtent())
    for axis in range(3):
        if low_high[2 * axis + 1] - low_high[2 * axis] + 2 * by >= 0:  # an axis of one voxel cannot lose two
            low_high[2 * axis] -= by
            low_high[2 * axis + 1] += by
    pad.SetOutputWholeExtent(*low_high)
    pad.Update()
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    other = slicer.vtkOrientedImageData()
    other.DeepCopy(pad.GetOutput())
    other.SetGeometryFromImageToWorldMatrix(matrix)
    return other


def as_slicer_merges(node, volume, monkeypatch):
    """The label map by Slicer's own resampling of each segment."""
    with monkeypatch.context() as patched:
        patched.setattr(segments, "_start", lambda image, geometry: None)
        return segmentation_to_label(node, volume, CLASSES)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("by", [-1, 0, 2])
def test_a_layer_of_any_extent_gives_what_slicer_gives(scene, monkeypatch, name, by):
    geometry = GRIDS[name]
    volume = volume_to_node(random_volume(geometry), "image")
    node = label_to_segmentation_node(LabelMap(labelled(geometry), geometry), CLASSES, volume, "labels")
    segmentation = node.GetSegmentation()
    layer = extended(segmentation.GetNthSegment(0).GetRepresentation(segments.binary_labelmap()), by)
    for index in range(3):
        segmentation.GetNthSegment(index).AddRepresentation(segments.binary_labelmap(), layer)
    copied = segmentation_to_label(node, volume, CLASSES).array
    assert np.array_equal(copied, as_slicer_merges(node, volume, monkeypatch).array)
    inner = tuple(slice(1, -1) if by < 0 and length >= 3 else slice(None) for length in geometry.shape)
    assert np.array_equal(copied[inner], labelled(geometry)[inner])


def test_a_layer_of_another_grid_is_resampled_by_slicer(scene, monkeypatch):
    geometry = GRIDS["oblique"] if "oblique" in GRIDS else next(iter(GRIDS.values()))
    volume = volume_to_node(random_volume(geometry), "image")
    node = label_to_segmentation_node(LabelMap(labelled(geometry), geometry), CLASSES, volume, "labels")
    moved = geometry.ijk_to_ras.copy()
    moved[:3, 3] += 0.4 * geometry.ijk_to_ras[:3, 0]
    for index in range(3):
        image = node.GetSegmentation().GetNthSegment(index).GetRepresentation(segments.binary_labelmap())
        image.SetGeometryFromImageToWorldMatrix(vtk_matrix(moved))
    assert segments._start(image, geometry) is None
    copied = segmentation_to_label(node, volume, CLASSES).array
    assert np.array_equal(copied, as_slicer_merges(node, volume, monkeypatch).array)


def test_a_segment_without_voxels_is_absent(scene):
    geometry = next(iter(GRIDS.values()))
    volume = volume_to_node(random_volume(geometry), "image")
    node = label_to_segmentation_node(LabelMap(labelled(geometry), geometry), CLASSES, volume, "labels")
    import slicer

    node.GetSegmentation().GetNthSegment(1).AddRepresentation(segments.binary_labelmap(), slicer.vtkOrientedImageData())
    expected = labelled(geometry)
    expected[expected == 2] = 0
    assert np.array_equal(segmentation_to_label(node, volume, CLASSES).array, expected)


def test_what_was_copied_does_not_change_with_the_scene(scene):
    geometry = next(iter(GRIDS.values()))
    volume = volume_to_node(random_volume(geometry), "image")
    node = label_to_segmentation_node(LabelMap(labelled(geometry), geometry), CLASSES, volume, "labels")
    before, grid = node_voxels(volume)
    steps, copied = read_segments_steps(node, volume, CLASSES), None
    pauses = 0
    while copied is None:
        try:
            next(steps)
            pauses += 1
        except StopIteration as end:
            copied = end.value
    assert pauses == 3
    assert len({id(part.layer) for part in copied.parts}) == 1  # one layer is copied once
    values = volume.GetImageData().GetPointData().GetScalars()
    scalars = node.GetSegmentation().GetNthSegment(0).GetRepresentation(segments.binary_labelmap())
    values.Fill(0)
    scalars.GetPointData().GetScalars().Fill(1)
    assert before.any()
    assert grid.matches(geometry)
    assert np.array_equal(copied.label_map().array, labelled(geometry))


def test_window_and_level_are_those_that_slicer_would_choose(scene):
    rng = np.random.default_rng(3)
    geometry = next(iter(GRIDS.values()))
    array = rng.normal(300, 50, geometry.shape).round()
    node = image_to_node(ready_image(array, geometry), "image")
    display = node.GetDisplayNode()
    chosen = display.GetWindowLevelMin(), display.GetWindowLevelMax()
    display.AutoWindowLevelOn()
    node.GetImageData().Modified()
    slicers = display.GetWindowLevelMin(), display.GetWindowLevelMax()
    assert slicers[1] > slicers[0]
    assert np.allclose(chosen, slicers, atol=0.1 * (slicers[1] - slicers[0]))
