"""Generated anatomy is what the recipe says: reproducible, alike between subjects, not readable by brightness."""

from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter

from SSLSegLib.cases.frames import slices_to_frames
from SSLSegLib.checkpoint.atlas import draw_anatomy
from SSLSegLib.checkpoint.fields import smooth_fields
from SSLSegLib.checkpoint.primitives import Ellipsoid, Tube
from SSLSegLib.checkpoint.rendering import draw_contrast, related_contrast, render
from SSLSegLib.checkpoint.samples import SampleOptions, Samples, draw_subjects, place_at
from SSLSegLib.checkpoint.views import EVERYTHING, across, as_coarse, drawn_region, drawn_regions, to_frames
from SSLSegLib.tffs.place import moved_prior
from SSLSegLib.tffs.registration import Displacement
from SSLSegLib.tffs.vote import agreed


@pytest.fixture(scope="module")
def anatomies():
    return [draw_anatomy(np.random.default_rng(seed)) for seed in range(40)]


@pytest.fixture(scope="module")
def pairs():
    return [draw_subjects(np.random.default_rng(seed)) for seed in range(2)]


@pytest.fixture(scope="module")
def batch():
    options = SampleOptions(image_size=64, batch=1, shapes=((4, 5),))
    return next(iter(Samples(options, seed=5))), options


def test_a_field_has_unit_variance_and_no_jumps():
    field = smooth_fields(np.random.default_rng(0), 8, (24, 32, 32), 6)
    assert field.shape == (8, 24, 32, 32)
    assert 0.4 < field.var() < 2.5
    assert field.diff(dim=-1).abs().max() < 0.35 * (field.max() - field.min())


def test_an_ellipsoid_is_negative_inside_and_zero_on_its_surface():
    ball = Ellipsoid(np.array([0.1, 0.0, 0.0]), np.array([0.2, 0.3, 0.4]), np.eye(3))
    points = torch.tensor([[0.1, 0, 0], [0.3, 0, 0], [0.1, 0.3, 0], [0.1, 0, 0.4], [0.9, 0, 0]]).T[:, :, None, None]
    values = ball(points).flatten()
    assert values[0] < -0.2
    assert torch.allclose(values[1:4], torch.zeros(3), atol=1e-3)
    assert values[4] > 0.2


def test_a_tube_is_its_radius_wide_along_its_line():
    tube = Tube(np.array([[0.0, 0, 0], [1.0, 0, 0]]), np.array([0.1, 0.1]))
    points = torch.tensor([[0.5, 0.1, 0], [0.5, 0.0, 0], [0.5, 0.3, 0]]).T[:, :, None, None]
    assert torch.allclose(tube(points).flatten(), torch.tensor([0.0, -0.1, 0.2]), atol=1e-5)


def test_brightness_alone_does_not_identify_most_targets(anatomies):
    shared = []
    for anatomy in anatomies:
        for target in anatomy.candidates:
            tissues = {anatomy.tissues[structure] for structure in target}
            others = [t for s, t in enumerate(anatomy.tissues) if s not in target and s > 0]
            shared.append(any(t in tissues for t in others))
    assert np.mean(shared) > 0.8


def test_two_subjects_of_an_anatomy_overlap_and_differ(pairs):
    overlaps = []
    for pair in pairs:
        for target in pair.anatomy.candidates:
            one, other = (torch.isin(x, torch.tensor(target, dtype=torch.uint8)) for x in pair.labels[:2])
            if min(one.sum(), other.sum()) > 2000:
                overlaps.append((2 * (one & other).sum() / (one.sum() + other.sum())).item())
    assert len(overlaps) > 3
    assert 0.2 < np.mean(overlaps) < 0.95
    assert max(overlaps) < 0.999


def test_a_changed_contrast_moves_the_means_more_than_the_same_one(anatomies):
    rng = np.random.default_rng(0)
    moved = {"same": [], "shifted": [], "new": []}
    for anatomy in anatomies[:20]:
        contrast = draw_contrast(rng, anatomy.tissues)
        for change, found in moved.items():
            found.append(np.abs(related_contrast(rng, contrast, anatomy.tissues, change).means - contrast.means).mean())
    assert np.mean(moved["same"]) < np.mean(moved["shifted"]) < np.mean(moved["new"])


def test_equal_seeds_give_equal_images(pairs):
    def once():
        rng = np.random.default_rng(3)
        return render(pairs[0].labels[0], np.arange(3), draw_contrast(rng, pairs[0].anatomy.tissues), rng)

    assert torch.equal(once(), once())


@pytest.mark.parametrize("view", [EVERYTHING, (slice(20, 70), slice(10, 50))])
def test_frames_are_those_of_real_volumes_and_of_their_regions(view):
    rng = np.random.default_rng(0)
    images = smooth_fields(rng, 1, (2, 100, 80), (1, 12, 12))[0]
    low, high = np.percentile(images.numpy()[:, ::2, ::2], [0.5, 99.5])
    display = np.clip((images.numpy() - low) / (high - low), 0, 1) * 255
    expected = slices_to_frames(display[None][..., view[0], view[1]], 64)
    difference = (to_frames(images, 64, view) - expected).abs() * 0.229 * 255
    assert difference.max() <= 2.1  # grey levels: the two resizers round differently


def test_a_batch_holds_targets_on_labelled_and_chain_slices(batch):
    made, options = batch
    assert made.frames.shape == (1, 9, 3, 64, 64)
    assert made.masks.shape == (1, options.targets, 9, 64, 64)
    assert made.distance.shape == (1, 4)
    assert (made.distance >= 1).all()
    assert made.masks[:, 0, :4].flatten(1).any(1).all()  # the leading target has a prompt
    assert torch.isfinite(made.frames).all()
    assert made.structures.shape == (1, 9, 16, 16)


@pytest.mark.parametrize(
    ("resliced", "registered", "high", "most"), [(0.0, 0.0, 0.8, 0.97), (1.0, 0.0, 0.8, 0.97), (0.5, 1.0, 0.95, 0.99)]
)
def test_the_place_that_is_told_resembles_the_target_but_is_not_it(resliced, registered, high, most):
    """One labelled subject or three, another field of view, moved along the axis, or registered; of whatever axis."""
    options = SampleOptions(image_size=64, batch=2, shapes=((4, 5),), resliced=resliced, registered=registered)
    stream = iter(Samples(options, seed=5))
    overlaps = []
    for _ in range(6):
        made = next(stream)
        truth = F.avg_pool2d(made.masks[:, :, 4:].flatten(0, 2).float()[:, None], 4)[:, 0]
        place = made.place.flatten(0, 2)
        assert place.shape == truth.shape
        assert place.min() >= 0
        assert place.max() <= 1
        there = truth.flatten(1).sum(1) > 5
        both = (torch.minimum(place, truth)).flatten(1).sum(1)
        overlaps += (2 * both / (place + truth).flatten(1).sum(1))[there].tolist()
    assert 0.3 < np.median(overlaps) < high
    assert max(overlaps) < most


@pytest.mark.parametrize("axis", [1, 2])
def test_across_a_volume_the_slices_of_before_are_rows(axis):
    labels = torch.arange(4 * 12 * 12).view(1, 4, 12, 12)
    turned = across(labels, axis)
    assert turned.shape == labels.shape
    expected = labels[0].movedim(axis, 0)  # (12, 4, 12)
    for k, seen in enumerate((0, 4, 7, 11)):  # the twelve, evenly
        for row in range(12):
            assert torch.equal(turned[0, k, row], expected[seen, row // 3])


def test_a_coarse_image_has_lost_what_lies_between_its_rows_and_kept_the_rest():
    fine = torch.arange(48.0).remainder(2).view(1, 48, 1).expand(1, 48, 48)
    assert as_coarse(fine, 12).sub(0.5).abs().max() < 1e-6
    assert torch.equal(as_coarse(fine.mT.contiguous(), 12), fine.mT)


def test_the_region_of_a_sample_holds_the_target_of_the_labelled_subjects():
    rng = np.random.default_rng(2)
    masks = torch.zeros(2, 4, 128, 128, dtype=torch.bool)
    masks[0, :, 40:60, 50:60] = masks[1, :, 50:72, 48:70] = True
    sides = []
    for _ in range(40):
        region = drawn_region(rng, list(masks))
        rows, columns = region.of((128, 128))
        sides.append(rows.stop - rows.start)
        assert abs(sides[-1] - (columns.stop - columns.start)) <= 1
        assert masks[:, :, rows, columns].sum() == masks.sum()
    assert 32 / 0.76 < min(sides) < max(sides) < 32 / 0.44


def test_place_is_known_slice_by_slice():
    mask = torch.zeros(1, 40, 32, 32, dtype=torch.bool)
    mask[:, 10:20, 8:24, 8:24] = True
    still = mock.Mock(random=lambda: 1.0, normal=lambda: 0.0)  # a generator that moves nothing
    place = place_at(still, [mask, torch.zeros_like(mask)], np.array([0, 15, 30]), 16)
    np.testing.assert_allclose(place[0, :, 8, 8], [0, 0.5, 0], atol=1e-3)
    thinner = F.avg_pool2d(mask.float(), 2)[0].numpy()
    by_position = gaussian_filter(thinner / 2, [0.025 * size for size in thinner.shape], mode="nearest")
    np.testing.assert_allclose(place[0, 1], by_position[15], atol=0.12)  # but for resized edges
    known = [mask[0], mask[0].roll(2, 0), mask[0].roll(9, 1)]  # the last one elsewhere
    voted = agreed(torch.stack(known).float(), torch.full((3, 1, 1, 1), 1 / 3))[None]
    registered = place_at(np.random.default_rng(0), [voted], np.arange(40), 32, registered=True)
    shape = (40, 32, 32)
    as_they_lie = torch.eye(4)[:3]
    still = Displacement(torch.zeros(1, 3, 2, 2, 2), shape, as_they_lie, shape, torch.ones(1, 1, 2, 2, 2))
    prior = moved_prior([(still, each.numpy()) for each in known], shape)
    np.testing.assert_allclose(registered[0], prior, atol=0.02)  # what the engine tells


def test_labels_are_moved_onto_the_first_subject_by_what_images_show(pairs):
    for subjects in pairs:
        moved, unlike = subjects.moved(np.random.default_rng(1))
        assert len(moved) == len(unlike) == len(subjects.labels) - 1
        assert moved.dtype == torch.uint8
        assert moved is subjects.moved(np.random.default_rng(2))[0], "once"

        def alike(others, fixed=subjects.labels[0]):
            return (others == fixed).float().mean()

        assert alike(moved) > alike(subjects.labels[1:])


def test_the_regions_of_a_registered_sample_lie_around_the_target_in_each_subject():
    rng = np.random.default_rng(2)
    masks = torch.zeros(2, 4, 128, 128, dtype=torch.bool)
    masks[0, :, 20:40, 50:60] = masks[1, :, 80:98, 48:70] = True
    for _ in range(40):
        regions = drawn_regions(rng, masks[0], [masks[1], torch.zeros_like(masks[1])])
        for mask, region in zip(masks, regions, strict=True):
            rows, columns = region.of((128, 128))
            assert mask[:, rows, columns].sum() == mask.sum()
            assert rows.stop - rows.start < 55
        assert np.ptp(regions[0].rows) == pytest.approx(np.ptp(regions[1].rows))
    nowhere = drawn_regions(rng, masks[0], [torch.zeros_like(masks[1])])
    assert np.mean(nowhere[1].rows) == pytest.approx(np.mean(nowhere[0].rows), abs=0.1)


def test_structures_have_their_number_where_the_target_is_and_nowhere_else(batch):
    made, _ = batch
    target = made.masks[0, 0].float()
    inside = F.avg_pool2d(target, 4) == 1
    elsewhere = F.max_pool2d(target, 12, 4, 4) == 0  # a pixel at the edge may fall on either side
    numbers = set(made.structures[0][inside].tolist())
    assert numbers
    assert not numbers & {0, *made.structures[0][elsewhere].tolist()}


def test_the_stream_is_the_same_for_the_same_seed_only(batch):
    made, options = batch
    again = next(iter(Samples(options, seed=5)))
    other = next(iter(Samples(options, seed=6)))
    assert torch.equal(again.frames, made.frames)
    assert torch.equal(again.place, made.place)
    assert not torch.equal(other.frames, made.frames)
