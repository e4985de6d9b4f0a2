"""Overlap and distances against MedPy and MONAI, and the rules for empty masks."""

import math
import warnings

import numpy as np
import pytest
import torch
from medpy.metric import binary as medpy
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from scipy.ndimage import gaussian_filter

from SSLSegLib.evaluation import metrics

SPACINGS = [(1.0, 1.0, 1.0), (3.0, 0.7, 1.3), (0.5, 2.0, 5.0)]


def random_shape(seed: int, shape=(14, 22, 18), threshold=0.02) -> np.ndarray:
    """A ragged random blob, often of several parts, that may touch the image's edge."""
    return gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.0) > threshold


def as_monai(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(mask[None, None].astype(np.float32))


@pytest.mark.parametrize("seed", range(6))
def test_overlap_equals_medpy(seed):
    prediction, reference = random_shape(seed), random_shape(seed + 100, threshold=0.05)
    assert metrics.dice(prediction, reference) == pytest.approx(medpy.dc(prediction, reference), abs=1e-12)
    assert metrics.iou(prediction, reference) == pytest.approx(medpy.jc(prediction, reference), abs=1e-12)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(4))
def test_distances_equal_medpy(seed, spacing):
    prediction, reference = random_shape(seed), random_shape(seed + 100, threshold=0.06)
    assert metrics.hausdorff(prediction, reference, spacing) == pytest.approx(
        medpy.hd(prediction, reference, voxelspacing=spacing), abs=1e-9
    )
    assert metrics.hausdorff95(prediction, reference, spacing, "pooled") == pytest.approx(
        medpy.hd95(prediction, reference, voxelspacing=spacing), abs=1e-9
    )
    assert metrics.assd(prediction, reference, spacing) == pytest.approx(
        medpy.assd(prediction, reference, voxelspacing=spacing), abs=1e-9
    )


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(4))
def test_distances_equal_monai(seed, spacing):
    prediction, reference = random_shape(seed), random_shape(seed + 100, threshold=0.06)
    arguments = {"include_background": True, "spacing": list(spacing)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        largest = compute_hausdorff_distance(as_monai(prediction), as_monai(reference), **arguments)
        larger = compute_hausdorff_distance(as_monai(prediction), as_monai(reference), percentile=95, **arguments)
        mean = compute_average_surface_distance(as_monai(prediction), as_monai(reference), symmetric=True, **arguments)
    assert metrics.hausdorff(prediction, reference, spacing) == pytest.approx(largest.item(), rel=1e-5)
    assert metrics.hausdorff95(prediction, reference, spacing, "larger") == pytest.approx(larger.item(), rel=1e-5)
    assert metrics.assd(prediction, reference, spacing) == pytest.approx(mean.item(), rel=1e-5)


def test_the_two_variants_of_hd95_differ_where_one_direction_is_worse():
    reference = np.zeros((12, 30, 30), bool)
    reference[2:10, 5:25, 5:25] = True
    prediction = reference.copy()
    prediction[:, :3, :3] = True  # a false island: 7 % of the prediction's surface, 4 % of both surfaces, is far
    pooled = metrics.hausdorff95(prediction, reference, (1, 1, 1), "pooled")
    larger = metrics.hausdorff95(prediction, reference, (1, 1, 1), "larger")
    assert larger > 3.0 > pooled
    with pytest.raises(ValueError, match="pooled"):
        metrics.hausdorff95(prediction, reference, (1, 1, 1), "mean")


def test_a_shift_of_two_slices_is_two_slice_thicknesses():
    reference = np.zeros((20, 16, 16), bool)
    reference[4:10, 4:12, 4:12] = True
    prediction = np.roll(reference, 2, axis=0)
    assert metrics.hausdorff(prediction, reference, (2.5, 0.8, 0.8)) == pytest.approx(5.0)


def test_distances_do_not_change_with_a_margin_or_with_the_order_of_the_masks():
    prediction, reference = random_shape(1), random_shape(2)
    padded = [np.pad(mask, 7) for mask in (prediction, reference)]
    for measure in (metrics.hausdorff, metrics.hausdorff95, metrics.assd):
        value = measure(prediction, reference, (3.0, 1.0, 0.6))
        assert measure(*padded, (3.0, 1.0, 0.6)) == pytest.approx(value, abs=1e-9)
        assert measure(reference, prediction, (3.0, 1.0, 0.6)) == pytest.approx(value, abs=1e-9)


def test_two_empty_masks_agree_perfectly():
    empty = np.zeros((4, 5, 6), bool)
    assert metrics.dice(empty, empty) == 1.0
    assert metrics.iou(empty, empty) == 1.0
    assert metrics.miou_with_background(empty, empty) == 1.0
    for measure in (metrics.hausdorff, metrics.hausdorff95, metrics.assd):
        assert measure(empty, empty, (1, 1, 1)) == 0.0
        assert measure(empty, empty, (1, 1, 1), empty="diagonal") == 0.0


@pytest.mark.parametrize("swapped", [False, True])
def test_one_empty_mask_scores_zero_and_has_no_distance(swapped):
    empty = np.zeros((4, 5, 6), bool)
    full = empty.copy()
    full[1:3, 1:3, 1:3] = True
    pair = (full, empty) if swapped else (empty, full)
    assert metrics.dice(*pair) == 0.0
    assert metrics.iou(*pair) == 0.0
    for measure in (metrics.hausdorff, metrics.hausdorff95, metrics.assd):
        assert math.isnan(measure(*pair, (1, 1, 1)))
        assert measure(*pair, (2, 1, 1), empty="diagonal") == pytest.approx(math.sqrt(6**2 + 4**2 + 5**2))


def test_miou_with_background_is_above_iou_and_is_the_mean_of_both():
    reference = np.zeros((10, 10, 10), bool)
    reference[2:6, 2:6, 2:6] = True
    prediction = np.roll(reference, 1, axis=1)
    foreground, background = 48 / 80, 920 / 952
    assert metrics.iou(prediction, reference) == pytest.approx(foreground)
    assert metrics.miou_with_background(prediction, reference) == pytest.approx((foreground + background) / 2)


def test_a_single_voxel_and_a_single_slice_are_surfaces():
    reference = np.zeros((1, 9, 9), bool)
    reference[0, 2, 2] = True
    prediction = np.zeros_like(reference)
    prediction[0, 2, 5] = True
    assert metrics.hausdorff(prediction, reference, (4.0, 1.0, 0.5)) == pytest.approx(1.5)


def test_masks_of_different_shape_or_spacing_are_refused():
    mask = np.ones((3, 3, 3), bool)
    with pytest.raises(ValueError, match="shapes"):
        metrics.dice(mask, np.ones((3, 3, 2), bool))
    with pytest.raises(ValueError, match="spacing"):
        metrics.hausdorff(mask, mask, (1.0, 1.0))
    with pytest.raises(ValueError, match="spacing"):
        metrics.hausdorff(mask, mask, (1.0, 0.0, 1.0))
