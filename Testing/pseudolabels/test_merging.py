"""Thresholds, argmax, components and entropy."""

import numpy as np
import pytest
from scipy import ndimage

from SSLSegLib.pseudolabels.merging import (
    MAXIMUM_ENTROPY,
    binary_entropy,
    keep_largest_component,
    keep_largest_components,
    merge_classes,
)


def test_the_threshold_is_strict():
    probabilities = np.array([0.5, np.nextafter(np.float32(0.5), np.float32(1))], np.float32).reshape(1, 1, 1, 2)
    assert merge_classes(probabilities, 0.5).ravel().tolist() == [0, 1]


def test_the_likeliest_class_above_the_threshold_wins_and_none_below_it():
    probabilities = np.array([[0.6, 0.9, 0.4, 0.0], [0.8, 0.7, 0.45, 0.51]], np.float32).reshape(2, 1, 1, 4)
    assert merge_classes(probabilities, 0.5).ravel().tolist() == [2, 1, 0, 2]
    assert merge_classes(probabilities, 0.5, values=[7, 3]).ravel().tolist() == [3, 7, 0, 3]
    assert merge_classes(probabilities, 0.42).ravel().tolist() == [2, 1, 2, 2]


def test_of_equal_classes_the_first_wins():
    assert merge_classes(np.full((3, 1, 1, 1), 0.7, np.float32)).item() == 1


def test_merging_gives_bytes_and_refuses_what_has_no_class_axis():
    assert merge_classes(np.zeros((2, 3, 4, 5), np.float32)).dtype == np.uint8
    with pytest.raises(ValueError, match="classes"):
        merge_classes(np.zeros((3, 4, 5), np.float32))
    with pytest.raises(ValueError, match="label values"):
        merge_classes(np.zeros((2, 3, 4, 5), np.float32), values=[1])
    with pytest.raises(ValueError, match="255"):
        merge_classes(np.zeros((1, 3, 4, 5), np.float32), values=[300])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("connectivity", [26, 6])
def test_the_largest_component_is_the_one_scipy_finds(seed, connectivity):
    mask = np.random.default_rng(seed).random((9, 12, 11)) > (0.9 if connectivity == 26 else 0.7)
    components, _ = ndimage.label(mask, np.ones((3, 3, 3)) if connectivity == 26 else None)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    kept = keep_largest_component(mask, connectivity)
    assert kept.sum() == sizes.max()
    assert len(np.unique(components[kept])) == 1


def test_corners_connect_and_an_empty_mask_stays_empty():
    mask = np.zeros((4, 4, 4), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[3, 3, 3] = True
    assert keep_largest_component(mask).sum() == 2
    assert keep_largest_component(mask, 6).sum() == 1
    assert not keep_largest_component(np.zeros((4, 4, 4), bool)).any()


def test_components_are_kept_per_class_and_only_where_asked():
    labels = np.zeros((1, 5, 9), np.uint8)
    labels[0, :3, :3] = 1
    labels[0, 4, 8] = 1
    labels[0, 0:2, 6] = 2  # paired organ: both parts stay
    labels[0, 4, 0] = 2
    before = labels.copy()
    cleaned = keep_largest_components(labels, [1])
    assert (cleaned == 1).sum() == 9
    assert (cleaned == 2).sum() == 3
    assert np.array_equal(labels, before)
    assert (keep_largest_components(labels, [1, 2]) == 2).sum() == 2


def test_entropy_runs_from_zero_to_ln_two_and_is_symmetric():
    p = np.linspace(0, 1, 101, dtype=np.float32)
    entropy = binary_entropy(p)
    assert entropy.dtype == np.float32
    assert entropy[0] == entropy[-1] == 0.0
    assert entropy.max() == entropy[50] == pytest.approx(MAXIMUM_ENTROPY)
    assert np.allclose(entropy, entropy[::-1], atol=1e-6)
    official = -(p * np.log(p + 1e-8) + (1 - p) * np.log(1 - p + 1e-8))
    assert np.allclose(entropy, official, atol=1e-6)
