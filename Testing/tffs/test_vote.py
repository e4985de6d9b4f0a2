"""Votes of moved masks, against plain numpy and masks whose say is known."""

import numpy as np
import pytest
import torch
from deformed_volumes import SHAPE, image, pair, relative, shifted, taken, waves
from scipy.ndimage import gaussian_filter

from SSLSegLib.tffs import vote as voting
from SSLSegLib.tffs.registration import Displacement, registrable
from SSLSegLib.tffs.vote import vote, vote_weights


def counted(masks, times=3, power=4):
    """How much each mask of volumes that are all as alike counts: by how much it agrees with the outcome before."""
    weights = np.ones(len(masks))
    for _ in range(times):
        outcome = np.average(masks, 0, weights)
        overlaps = [2 * np.minimum(mask, outcome).sum() / (mask.sum() + outcome.sum()) for mask in masks]
        weights = np.maximum(overlaps, 0.02) ** power
    return weights


def ball(shape, center, radius):
    distance = np.indices(shape) - np.reshape(center, (3, 1, 1, 1))
    return np.sqrt((distance**2).sum(0)) < radius


def laid(masks):
    """Masks of volumes that lie on the fixed one as they are, all as alike."""
    for mask in masks:
        still, alike = torch.zeros(1, 3, *mask.shape), torch.ones(1, 1, *mask.shape)
        yield Displacement(still, mask.shape, shifted((0, 0, 0)), mask.shape, alike), mask


def test_a_mask_that_was_moved_elsewhere_loses_its_say():
    """Two that agree win against two that lie each somewhere else; half of the masks is nowhere more than here."""
    here = [ball(SHAPE, (8, 16, 16), 5), ball(SHAPE, (8, 17, 16), 5)]
    elsewhere = [ball(SHAPE, (8, 5, 5), 4), ball(SHAPE, (8, 26, 26), 4)]
    got = vote(laid([*here, *elsewhere]), SHAPE, 0.0)
    assert got[here[0] & here[1]].min() > 0.9
    assert got[elsewhere[0] | elsewhere[1]].max() < 0.1
    assert got.max() <= 1


def test_where_no_masks_agree_each_keeps_its_say():
    apart = [ball(SHAPE, (8, j, i), 4) for j, i in ((5, 5), (5, 26), (26, 5))]
    got = vote(laid(apart), SHAPE, 0.0)
    for mask in apart:
        np.testing.assert_allclose(got[mask], 1 / 3, atol=0.01)
    assert not vote(laid([np.zeros(SHAPE, bool)] * 2), SHAPE, 0.01).any(), "nor does it divide by nothing"


@pytest.mark.parametrize(("shape", "most", "mean"), [(SHAPE, 1e-5, 1e-5), ((4, 200, 8), 0.03, 1.2e-3)])
def test_a_class_lies_where_its_moved_masks_lie_in_the_mean_and_blurred(shape, most, mean):
    assert (max(shape) > voting._FINEST) == (most > 1e-3)
    masks = [waves(size, 1, [0.06 * n for n in size], k)[0] > 0 for k, size in enumerate([shape, shape, (10, 50, 20)])]
    shares = np.reshape([[0, 0, 0], [0, 0, 0], [0.1, -0.05, 0.2]], (3, 3, 1, 1, 1))
    moved, seen = (
        [taken(mask, relative(size) + share, mode="grid-constant") for mask, share in zip(masks, shares, strict=True)]
        for size in (shape, np.minimum(shape, voting._FINEST))
    )
    fields = (torch.from_numpy(share * np.reshape(shape, share.shape))[None].float() for share in shares)
    alike = torch.ones(1, 1, *shape)
    labelled = (
        (Displacement(field, shape, shifted((0, 0, 0)), shape, alike), mask)
        for field, mask in zip(fields, masks, strict=True)
    )
    got = vote(labelled, shape, 0.03)
    assert got.shape == shape
    assert got.dtype == np.float32
    assert got.min() >= 0
    assert got.max() <= 1
    expected = gaussian_filter(np.average(moved, 0, counted(np.stack(seen))), [0.03 * n for n in shape], mode="nearest")
    assert np.ptp(expected) > 0.9
    assert np.abs(got - expected).max() < most
    assert np.abs(got - expected).mean() < mean


def test_volumes_that_are_more_alike_around_a_voxel_count_more_there():
    unlike = torch.tensor([[1.0, 2.0], [1.0, 1.0], [1.0, 3.0]]).view(3, 1, 1, 1, 2)
    weights = vote_weights(unlike, (1, 1, 2))
    np.testing.assert_allclose(weights[:, 0, 0, 0], 1 / 3, rtol=1e-6)
    expected = np.exp(-np.array([2.0, 1.0, 3.0]) / 2.0 / 0.1)
    np.testing.assert_allclose(weights[:, 0, 0, 1], expected / expected.sum(), rtol=1e-5)
    assert vote_weights(torch.zeros(2, 1, 1, 1, 1), (4, 4, 4)).eq(0.5).all(), "equal copies"


def test_of_two_labelled_volumes_the_one_that_shows_the_same_decides():
    """The other shows another arrangement of the same structures in one half of the volume."""
    moving, fixed, _ = pair()
    strange = moving.copy()
    strange[:, :, 16:] = np.roll(moving, 9, 1)[:, :, 16:]
    target = registrable(image(fixed))
    found = [target.displacement(registrable(image(some, seed=1))) for some in (moving, strange)]
    assert found[1].unlike[..., 20:].mean() > 1.5 * found[0].unlike[..., 20:].mean()
    masks = [(moving == 1), (strange == 1)]
    prior = vote(zip(found, masks, strict=True), SHAPE, 0.0)
    plain = np.mean([one.moved(mask, SHAPE).numpy() for one, mask in zip(found, masks, strict=True)], axis=0)
    truth = fixed == 1
    assert np.abs(prior - truth).mean() < 0.8 * np.abs(plain - truth).mean()
