"""Where a structure lies in the labelled cases, as a second voice."""

import numpy as np
import pytest
import torch

from SSLSegLib.tffs.place import place_prompts, use_of_place, with_place
from SSLSegLib.weights.configuration import Sam2Configuration


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
