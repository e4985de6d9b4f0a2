"""Registration of volumes of any contrast, against numpy, scipy and deformations that are known."""

import numpy as np
import pytest
import torch
from deformed_volumes import (
    BRIGHTNESS,
    SHAPE,
    dice,
    fine,
    image,
    in_voxels,
    length,
    pair,
    relative,
    shifted,
    taken,
    waves,
)
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter1d, map_coordinates

from SSLSegLib.tffs import registration
from SSLSegLib.tffs.registration import (
    FINE_SIZE,
    SIZE,
    Displacement,
    registrable,
    registration_device,
    size_seen,
)


def registered(fixed, moving, **options):
    return registrable(fixed).displacement(registrable(moving), **options)


def moved_labels(displacement, labels, shape=SHAPE):
    return displacement.moved(labels, shape, nearest=True).numpy().astype(int)


def mind_ssc(volume):
    """The descriptors as the paper describes them, (12, k, j, i), but for what unlikeness is measured by."""
    shape, padded = volume.shape, np.pad(volume.astype(float), 1, mode="edge")
    faces = [tuple(step if a == axis else 0 for a in range(3)) for step in (-1, 1) for axis in range(3)]
    unlike = []
    for first, one in enumerate(faces):
        for other in faces[:first]:
            if np.dot(one, other) == 0:
                seen = [
                    padded[tuple(slice(1 + o, 1 + o + n) for o, n in zip(f, shape, strict=True))] for f in (one, other)
                ]
                unlike.append((seen[0] - seen[1]) ** 2)
    unlike = np.stack(unlike)
    for axis in (1, 2, 3):
        unlike = gaussian_filter1d(unlike, 1, axis, radius=3, mode="nearest")
    unlike -= unlike.min(0)
    scale = unlike.mean(0)
    some = scale.ravel()[::7]
    noise = 2 * np.quantile(some[some > 0], 0.05) if some.any() else 1
    return np.exp(-unlike / (scale + noise))


def faint_in_part(volume):
    volume[:, : volume.shape[1] // 2] *= 1e-3
    return volume


def one_bright_voxel(volume):
    volume[:] = 0
    volume[3, 10, 12] = 1
    return volume


@pytest.mark.parametrize("change", [lambda volume: volume, faint_in_part, one_bright_voxel])
def test_descriptors_are_those_of_the_paper_and_noise_counts_beside_the_mean(change):
    volume = change(waves((40, 48, 48), 1, 1, 3)[0].astype(np.float32))
    descriptors = registrable(volume).descriptors
    assert descriptors.dtype == torch.float32
    np.testing.assert_allclose(descriptors.numpy()[0], mind_ssc(volume), atol=1e-5)


def averaged(volume, size):
    """Each voxel of a coarser grid: the mean of all that it touches."""
    for axis, count in enumerate(size):
        length = volume.shape[axis]
        parts = [range(n * length // count, -(-(n + 1) * length // count)) for n in range(count)]
        volume = np.stack([volume.take(part, axis).mean(axis) for part in parts], axis)
    return volume


def test_large_volumes_are_described_at_most_so_finely_and_any_at_the_size_asked_for():
    assert registrable(np.zeros((50, 70, 66), np.float32)).descriptors.shape == (1, 12, *SIZE)
    volume = waves((5, 80, 10), 1, 1, 0)[0].astype(np.float32)
    for size, seen in ((None, (5, 64, 10)), ((7, 40, 8), (7, 40, 8))):
        descriptors = registrable(volume, size).descriptors.numpy()[0]
        coarse = averaged(volume, (5, *seen[1:]))  # and linear between slices where there are to be more
        np.testing.assert_allclose(descriptors, mind_ssc(taken(coarse, relative(seen))), atol=1e-4)


def test_the_last_descent_sees_more_where_a_volume_has_more():
    volume = waves((5, 80, 200), 1, 2, 0)[0].astype(np.float32)
    for size, finer in ((None, (5, 80, 96)), ((7, 40, 128), (7, 60, 192))):  # beside another: the same share more
        fine = registrable(volume, size).fine.numpy()[0]
        assert fine.shape == (12, *finer)
        coarse = averaged(volume, (5, *finer[1:]))
        np.testing.assert_allclose(fine, mind_ssc(taken(coarse, relative(finer))), atol=1e-4)
    assert registrable(np.zeros((99, 99, 99), np.float32)).fine.shape == (1, 12, *FINE_SIZE)
    small = registrable(volume[:, :60, :60])
    assert small.fine is small.descriptors, "and nothing is done twice where it has not"


@pytest.mark.parametrize("brightness", [BRIGHTNESS, BRIGHTNESS[::-1]], ids=["same", "inverted"])
def test_the_last_descent_comes_closer(brightness):
    """Structures of a few voxels, which the first descent sees half as fine."""
    shape = (12, 128, 128)
    labels = waves(shape, 4, [2, 2.2, 2.2], 0).argmax(0)
    true = np.reshape((0.5, 3, 3), (3, 1, 1, 1)) * waves(shape, 3, [5, 12, 12], 10)
    fixed = map_coordinates(labels, np.indices(shape) + true, order=0, mode="nearest")
    one, other = registrable(image(fixed)), registrable(image(labels, brightness, 1))
    found = one.displacement(other)
    one.fine = one.descriptors
    without = one.displacement(other)
    away, before = (
        length(fine(d.voxels[0].numpy(), shape) * np.divide(shape, d.fixed).reshape(3, 1, 1, 1) - true).mean()
        for d in (found, without)
    )
    assert away < 0.92 * before
    assert dice(moved_labels(found, labels, shape), fixed) > dice(moved_labels(without, labels, shape), fixed) + 0.015


def test_another_volume_is_to_have_voxels_as_long():
    one = registrable(np.zeros((50, 70, 60), np.float32), spacing=(3.0, 1.0, 2.0))
    assert one.spacing == pytest.approx((150 / 48, 70 / 64, 120 / 64))
    assert one.size_of((150, 70, 120)) == (48, 64, 64)
    assert one.size_of((75, 80.8, 18.75)) == (24, 74, 10)
    assert one.size_of((1, 1000, 1000)) == (1, 128, 128), "a voxel at least, and no more than twice as many as ever"


@pytest.mark.parametrize(
    ("brightness", "overlap", "error"),
    [
        (BRIGHTNESS, 0.88, 1.0),
        (BRIGHTNESS[::-1], 0.88, 1.0),
        ((0.5, 0.0, 0.6, 1.0), 0.8, 1.4),
        ((2 / 3, 0.0, 1.0, 1 / 3), 0.77, 1.6),
    ],
    ids=["same", "inverted", "two swapped", "all swapped"],
)
def test_a_known_deformation_is_undone_whatever_the_contrast(brightness, overlap, error):
    moving, fixed, true = pair()
    assert dice(moving, fixed) < 0.7
    assert length(true).mean() > 2.4
    found = registered(image(fixed), image(moving, brightness, 1))
    assert dice(moved_labels(found, moving), fixed) > overlap
    assert length(in_voxels(found) - true).mean() < error


def test_descent_comes_closer_than_the_search_and_the_search_than_nothing():
    moving, fixed, true = pair()
    away = [
        length(in_voxels(registered(image(fixed), image(moving, seed=1), iterations=n)) - true).mean() for n in (60, 0)
    ]
    assert 2 * away[0] < away[1] < 0.8 * length(true).mean()


def test_displacements_as_long_as_the_search_looks_are_found():
    """Not those of the volume as a whole: its two ends have opposite ones."""
    labels = waves((16, 32, 80), 4, 2.5, 2).argmax(0)
    true = np.zeros((3, *labels.shape))
    true[1] = 7 * np.cos(np.linspace(0, np.pi, 80))
    fixed = map_coordinates(labels, np.indices(labels.shape) + true, order=0, mode="nearest")
    one, other = (registrable(image(seen, seed=n), seen.shape) for n, seen in enumerate((fixed, labels)))
    assert torch.equal(one.displacement(other, iterations=0).laid, shifted((0, 0, 0)))
    searched, found = (in_voxels(one.displacement(other, iterations=n)) for n in (0, 60))
    for end in (np.s_[4:12], np.s_[-12:-4]):
        inner = np.s_[:, 4:-4, 8:-8, end]
        expected = true[inner].mean((1, 2, 3))
        np.testing.assert_allclose(found[inner].mean((1, 2, 3)), expected, atol=0.6)
        np.testing.assert_allclose(searched[inner].mean((1, 2, 3)), expected, atol=1.2)  # it takes steps of two


def best_shift(fixed, moving, least, bonus):
    """By trying all: the largest overlap, times how much less unlike volumes are in it than they usually are."""
    fixed, moving = (averaged(x, [len(x), *(n // 2 for n in x.shape[1:])]) for x in (fixed, moving))
    sizes, other = fixed.shape[1:], moving.shape[1:]
    tried = {}
    for shift in np.ndindex(*(n + m - 1 for n, m in zip(sizes, other, strict=True))):
        shift = tuple(s - n + 1 for s, n in zip(shift, sizes, strict=True))
        here = [slice(max(-s, 0), min(m - s, n)) for s, n, m in zip(shift, sizes, other, strict=True)]
        there = [slice(part.start + s, part.stop + s) for s, part in zip(shift, here, strict=True)]
        unlike = ((fixed[(slice(None), *here)] - moving[(slice(None), *there)]) ** 2).sum(0)
        share = unlike.size / min(np.prod(sizes), np.prod(other))
        if share > least:
            tried[shift] = share, unlike.mean()
    usual = np.mean([unlike for _, unlike in tried.values()]) + bonus
    return tuple(2 * s for s in max(tried, key=lambda shift: tried[shift][0] * (usual - tried[shift][1])))


@pytest.mark.parametrize("strangers", [False, True])
@pytest.mark.parametrize("seed", [0, 2, 4])
def test_of_all_ways_to_lay_one_volume_on_another_the_best_is_taken(seed, strangers):
    rng = np.random.default_rng(seed)
    whole = rng.random((3, 20, 24, 22), np.float32)
    sizes, starts = 2 * rng.integers(4, 7, (2, 3)), 2 * rng.integers(0, 3, (2, 3))
    parts = [whole[:, *map(slice, a, a + n)] for a, n in zip(starts, sizes, strict=True)]
    if strangers:
        parts[1] = rng.random(parts[1].shape, np.float32)
    found = registration._shift(*(torch.from_numpy(part.copy())[None] for part in parts))
    assert found == best_shift(*parts, 0.3, 3e-3)
    assert strangers or found == tuple(starts[0] - starts[1])


def rotation(angle, axis):
    turn = np.eye(3)
    a, b = (other for other in range(3) if other != axis)
    turn[[a, a, b, b], [a, b, a, b]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    return turn


@pytest.mark.parametrize("brightness", [BRIGHTNESS, BRIGHTNESS[::-1]], ids=["same", "inverted"])
def test_a_volume_that_lies_turned_and_larger_is_found_by_turning(brightness):
    """By so much that places far from the middle are beyond the search's reach."""
    shape = (24, 60, 60)
    labels = waves(shape, 4, 3.5, 3).argmax(0)
    axes = rotation(0.4, 0) @ rotation(-0.15, 1) * 1.12
    middle = np.reshape(np.divide(shape, 2) - 0.5, (3, 1, 1, 1))
    places = (
        np.einsum("ab,bkji->akji", axes, np.indices(shape) - middle) + middle + np.reshape((1, 3, -2), (3, 1, 1, 1))
    )
    fixed = map_coordinates(labels, places, order=0, mode="nearest")
    one, other = registrable(image(fixed)), registrable(image(labels, brightness, 1))
    straight, turned = one.displacements(other)
    assert torch.equal(straight.voxels, one.displacement(other).voxels)
    assert torch.equal(straight.laid[:, :3], torch.eye(3))
    np.testing.assert_allclose(turned.laid[:, :3].numpy(), axes, atol=0.1)
    inside = ((places >= 0) & (places <= np.reshape(shape, (3, 1, 1, 1)) - 1)).all(0)
    away = [length(in_voxels(found) - (places - np.indices(shape)))[inside].mean() for found in (straight, turned)]
    assert away[1] < 0.6
    assert away[0] > 2 * away[1]


def test_a_volume_that_does_not_lie_turned_is_not_turned():
    moving, fixed, true = pair((24, 40, 40))
    found = registrable(image(fixed)).displacements(registrable(image(moving, seed=1)))
    away = [length(in_voxels(each) - true).mean() for each in found]
    assert away[1] < 1.1 * away[0]
    unturned = registrable(image(fixed)).displacements(registrable(image(fixed, seed=1)))[1]
    np.testing.assert_allclose(unturned.laid.numpy(), shifted((0, 0, 0)).numpy(), atol=0.15)


def test_where_nothing_but_noise_is_seen_little_is_described():
    rng = np.random.default_rng(0)
    volume = rng.normal(0, 1, (24, 48, 48)).astype(np.float32)
    volume[:, :, 24:] += 8
    descriptors = registrable(volume).descriptors[0].numpy()
    of_noise, of_the_edge = (descriptors[:, 4:-4, 4:-4, some].std(0).mean() for some in (np.s_[4:18], np.s_[23:25]))
    assert of_the_edge > 1.7 * of_noise


@pytest.mark.parametrize("brightness", [BRIGHTNESS, BRIGHTNESS[::-1]], ids=["same", "inverted"])
@pytest.mark.parametrize("part", ["fixed", "moving"])
def test_a_part_is_found_in_a_whole_and_the_whole_around_a_part(part, brightness):
    labels = waves((24, 60, 60), 4, 2.5, 0).argmax(0)
    start = np.array([5, 22, 13])
    box = tuple(slice(a, a + b) for a, b in zip(start, SHAPE, strict=True))
    whole, cut = registrable(image(labels)), registrable(image(labels[box], brightness, 1))
    if part == "fixed":
        found = cut.displacement(whole)
        assert length(in_voxels(found) - np.reshape(start, (3, 1, 1, 1))).mean() < 0.5
        assert (moved_labels(found, labels) == labels[box]).mean() > 0.97
    else:
        found = whole.displacement(cut)
        there = in_voxels(found)[(slice(None), *box)]
        assert length(there + np.reshape(start, (3, 1, 1, 1))).mean() < 0.8
        assert (moved_labels(found, labels[box], labels.shape)[box] == labels[box]).mean() > 0.93


def test_a_moving_volume_with_other_voxels_lies_on_the_fixed_one_by_its_size_in_millimetres():
    moving, fixed, _ = pair()
    finer = taken(moving, relative((24, 40, 50)), order=0).astype(int)
    spacing = 4.0 * np.divide(SHAPE, finer.shape)
    one = registrable(image(fixed), spacing=(4.0, 4.0, 4.0))
    other = registrable(image(finer, seed=1), one.size_of(spacing * finer.shape), spacing=spacing)
    assert other.descriptors.shape == one.descriptors.shape
    assert other.spacing == pytest.approx(one.spacing)
    found = one.displacement(other)
    assert dice(taken(finer, relative(SHAPE), order=0), fixed) < 0.7
    assert dice(moved_labels(found, finer), fixed) > 0.84


@pytest.mark.parametrize("shape", [(9, 14, 20), (4, 7, 5)], ids=["a field as fine as the volume", "a coarser field"])
def test_moved_volumes_show_what_lies_where_the_field_says(shape):
    rng = np.random.default_rng(0)
    fixed, volume = (9, 14, 20), rng.random((13, 11, 30), np.float32)
    field = rng.uniform(-3, 3, (3, *shape)).astype(np.float32)
    seen, shift, other = np.reshape([[7, 9, 10], [1, -2, 3], [8, 6, 15]], (3, 3, 1, 1, 1))  # leads out of it, too
    turn = np.array([[0.9, 0.2, -0.1], [0.0, 1.1, 0.3], [0.1, -0.2, 1.0]])
    laid = torch.from_numpy(np.concatenate([turn, shift.reshape(3, 1)], 1)).float()
    displacement = Displacement(
        torch.from_numpy(field)[None], seen.ravel(), laid, other.ravel(), torch.ones(1, 1, *shape)
    )
    there = np.einsum("ab,bkji->akji", turn, relative(fixed) * seen) + shift
    places = (there + fine(field, fixed)) / other
    linear = displacement.moved(volume, fixed)
    assert linear.dtype == torch.float32
    expected = taken(volume, places, mode="grid-constant")
    np.testing.assert_allclose(linear.numpy(), expected, atol=1e-4)
    assert 0.05 < (expected == 0).mean() < 0.9
    nearest = displacement.moved(volume, fixed, nearest=True).numpy()
    differs = nearest != taken(volume, places, order=0).astype(np.float32)
    assert differs.mean() < 0.002, "only places in the very middle of two voxels may be rounded otherwise"


def embedded(volume, shape):
    """In the middle of an empty volume."""
    around = np.zeros(shape, volume.dtype)
    start = [(a - b) // 2 for a, b in zip(shape, volume.shape, strict=True)]
    around[tuple(slice(a, a + b) for a, b in zip(start, volume.shape, strict=True))] = volume
    return around


@pytest.mark.parametrize(
    ("shape", "within"),
    [(SHAPE, SHAPE), ((15, 33, 30), (15, 33, 30)), (SHAPE, (28, 44, 44))],
    ids=["even", "odd", "in the middle of nothing"],
)
def test_a_volume_stays_where_it_is_in_itself(shape, within):
    labels = pair(shape)[1]
    seen = embedded(image(labels), within)
    found = registered(seen, seen)
    assert length(in_voxels(found)).max() < 0.4
    mask = embedded(labels == 2, within)
    moved = found.moved(mask, within, nearest=True).numpy() > 0
    assert moved[binary_erosion(mask)].all()
    assert not moved[~binary_dilation(mask)].any()
    assert (moved ^ mask).mean() < 0.005


@pytest.mark.parametrize("noise_first", [False, True])
def test_a_channel_that_shows_nothing_does_not_keep_another_from_being_used(noise_first):
    moving, fixed, _ = pair()
    rng = np.random.default_rng(5)
    seen = []
    for labels, seed in ((fixed, 0), (moving, 1)):
        channels = [image(labels, seed=seed), rng.normal(0, 1, SHAPE).astype(np.float32)]
        seen.append(np.stack(channels[::-1] if noise_first else channels))
    assert registrable(seen[0]).descriptors.shape == (1, 24, *SHAPE)
    assert dice(moving, fixed) < 0.7
    assert dice(moved_labels(registered(*seen), moving), fixed) > 0.8


def test_a_channel_given_twice_says_no_more_than_once():
    moving, fixed, _ = pair()
    seen = image(fixed), image(moving, seed=1)
    once, twice = (registered(*images) for images in (seen, [np.stack([one, one]) for one in seen]))
    np.testing.assert_allclose(in_voxels(twice), in_voxels(once), atol=1e-2)


def test_two_runs_find_the_same_to_the_bit():
    moving, fixed, _ = pair()
    one, other = (registrable(image(fixed)).displacements(registrable(image(moving, seed=1))) for _ in range(2))
    for first, second in zip(one, other, strict=True):
        assert torch.equal(first.voxels, second.voxels)
        assert torch.equal(first.laid, second.laid)


@pytest.mark.parametrize(
    "shape", [(1, 30, 33), (2, 37, 34), (5, 37, 34), (15, 33, 31), (3, 2, 1), (1, 1, 1)], ids=lambda shape: str(shape)
)
def test_volumes_thinner_than_a_block_and_of_odd_sizes_are_registered(shape):
    moving, fixed, _ = pair(shape, (0 if shape[0] < 8 else 1, 2, 2), 1)
    found, *turned = registrable(image(fixed)).displacements(registrable(image(moving, seed=1)))
    assert len(turned) == (min(shape) >= 8), "thin volumes show too little to turn them by"
    assert all(each.voxels.isfinite().all() for each in (found, *turned))
    assert found.moved(moving, shape).shape == shape
    if np.prod(shape) > 500:
        assert dice(moved_labels(found, moving, shape), fixed) > dice(moving, fixed) + 0.08
    if shape[0] == 1:
        assert not in_voxels(found)[0].any(), "a single slice has nowhere to go"


@pytest.mark.parametrize("value", [0, 7])
def test_volumes_that_show_nothing_stay_where_they_are(value):
    nothing = np.full(SHAPE, value, np.float32)
    for found in registrable(nothing).displacements(registrable(nothing)):
        assert length(in_voxels(found)).max() < 1e-3
    something = image(pair()[0])
    for fixed, moving in ((nothing, something), (something, nothing)):
        for found in registrable(fixed).displacements(registrable(moving), iterations=5):
            assert found.voxels.isfinite().all()
            assert found.laid.isfinite().all()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_callers_that_ask_for_no_gradients_get_the_same(mode):
    moving, fixed, _ = pair()
    seen = image(fixed), image(moving, seed=1)
    expected = registered(*seen).voxels
    with mode():
        found, turned = registrable(seen[0]).displacements(registrable(seen[1]))
        assert found.moved(moving, SHAPE).shape == SHAPE
    assert torch.equal(found.voxels, expected)
    assert not turned.laid.requires_grad
    assert not found.voxels.requires_grad
    assert not torch.equal(expected, registered(*seen, iterations=0).voxels)


def test_what_is_unlike_is_the_smoothed_difference_of_moved_descriptors():
    moving, fixed, _ = pair()
    one, other = registrable(image(fixed)), registrable(image(moving, seed=1))
    found = one.displacement(other)
    places = relative(SHAPE) + fine(found.voxels[0].numpy(), SHAPE) / np.reshape(SHAPE, (3, 1, 1, 1))
    moved = np.stack([taken(channel, places) for channel in other.descriptors[0].numpy()])
    expected = ((moved - one.descriptors[0].numpy()) ** 2).mean(0)
    for axis in range(3):
        expected = gaussian_filter1d(expected, 3, axis, mode="nearest", radius=9)
    assert torch.equal(found.laid, shifted((0, 0, 0)))
    np.testing.assert_allclose(found.unlike[0, 0].numpy(), expected, rtol=1e-3)


def test_thick_slices_are_interpolated_so_that_neighbours_lie_near():
    assert size_seen((10, 256, 256), (8.0, 1.4, 1.4)) == (48, 64, 64)
    assert size_seen((5, 40, 36), (4.0, 1.2, 1.0)) == (20, 48, 36)
    assert size_seen((88, 145, 174), (0.625,) * 3) == SIZE
    assert size_seen((30, 30, 30), (1.0, 1.0, 1.0)) == (30, 30, 30)


def test_of_every_fourth_slice_the_same_is_found_as_of_all():
    """A class that is plain in all slices, of which few are left."""
    moving, fixed, _ = pair((32, 40, 40), (3, 3, 3))
    every, few = (slice(None), (1.0, 1.0, 1.0)), (slice(2, None, 4), (4.0, 1.0, 1.0))

    def overlap(slices, spacing):
        target = registrable(image(fixed)[slices], spacing=spacing)
        found = target.displacement(registrable(image(moving, seed=1)[slices], spacing=spacing))
        return dice(moved_labels(found, moving[slices], fixed[slices].shape), fixed[slices])

    assert dice(moving[few[0]], fixed[few[0]]) < 0.65
    assert overlap(*every) > 0.85
    assert overlap(*few) > 0.75
    assert overlap(few[0], (1.0, 1.0, 1.0)) < overlap(*few) - 0.1, "told that slices are thin"


def test_only_nvidia_gpus_register():
    assert registration_device(torch.device("cuda", 1)) == torch.device("cuda", 1)
    assert registration_device(torch.device("mps")) == registration_device(torch.device("cpu")) == torch.device("cpu")
