"""Where a structure lies in the labelled cases, as a second voice."""

import numpy as np
import pytest
import torch

from SSLSegLib.tffs.place import place_prior, place_prompts, use_of_place, with_place
from SSLSegLib.weights.configuration import Sam2Configuration


def box(shape, start, stop):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return mask


def test_masks_of_other_sizes_are_laid_on_each_other_by_relative_position():
    small = box((10, 20, 30), (2, 4, 6), (8, 16, 24))
    large = box((20, 40, 60), (4, 8, 12), (16, 32, 48))  # the same, seen finer
    prior = place_prior([small, large], (40, 60, 90))
    assert prior.shape == (40, 60, 90)
    assert prior.dtype == np.float32
    there = box((40, 60, 90), (8, 12, 18), (32, 48, 72))
    assert ((prior > 0.5) ^ there).sum() < 0.03 * there.sum()  # the blur rounds edges
    middle = np.s_[20, 30, :]
    np.testing.assert_array_equal((prior > 0.5)[middle], there[middle])
    assert prior.max() <= 1
    assert prior[20, 30, 45] > 0.999
    assert prior[0, 0, 0] < 1e-6


def test_places_that_few_cases_share_count_less():
    everywhere, left = box((8, 40, 40), (0, 0, 0), (8, 40, 40)), box((8, 40, 40), (0, 0, 0), (8, 40, 20))
    prior = place_prior([everywhere, left, left, left], (8, 40, 40))
    assert prior[4, 20, 5] > 0.99
    np.testing.assert_allclose(prior[4, 20, 35], 0.25, atol=1e-3)


def test_neither_voice_decides_alone():
    found, prior = np.array([1.0, 0.9, 0.6, 0.0]), np.array([0.0, 0.2, 0.6, 1.0])
    np.testing.assert_array_equal(with_place(found, prior) > 0.5, [False, True, True, False])


def test_a_prior_becomes_the_logits_of_a_rough_mask():
    prompts = place_prompts(torch.tensor([0.0, 0.5, 1.0])[:, None, None].expand(3, 90, 70), 16)
    assert prompts.shape == (3, 1, 16, 16)
    np.testing.assert_allclose(prompts[:, 0, 8, 8], [-5.9889, 0.0, 5.9889], atol=1e-3)


@pytest.mark.parametrize(
    ("trained", "asked", "use"),
    [
        (True, None, "told"),
        (True, True, "told"),
        (True, False, None),
        (False, None, None),
        (False, True, "averaged"),
        (False, False, None),
    ],
)
def test_only_weights_that_were_trained_for_it_are_told_the_place(trained, asked, use):
    assert use_of_place(asked, Sam2Configuration(place_prompts=trained)) == use
