"""Registration of volumes of any contrast, against numpy, scipy and deformations that are known."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter, gaussian_filter1d, map_coordinates

from SSLSegLib.tffs import registration
from SSLSegLib.tffs.registration import SIZE, Displacement, mean_of_moved, registrable, registration_device

SHAPE = (16, 32, 32)
BRIGHTNESS = (0.0, 1 / 3, 2 / 3, 1.0)  # of four structures


def waves(shape, count, sigma, seed):
    """Smooth random volumes, each with a standard deviation of one."""
    noise = np.random.default_rng(seed).standard_normal((count, *shape))
    smooth = np.stack([gaussian_filter(one, sigma, mode="nearest") for one in noise])
    smooth -= smooth.mean((1, 2, 3), keepdims=True)
    return smooth / np.maximum(smooth.std((1, 2, 3), keepdims=True), 1e-6)


@cache
def pair(shape=SHAPE, amount=(1, 2, 2), seed=0):
    """Labels of a moving and of a fixed volume, and the displacement in voxels that leads from this one to that."""
    moving = waves(shape, 4, 2.5, seed).argmax(0)
    displacement = np.reshape(amount, (3, 1, 1, 1)) * waves(shape, 3, [0.4 * size for size in shape], seed + 10)
    fixed = map_coordinates(moving, np.indices(shape) + displacement, order=0, mode="nearest")
    return moving, fixed, displacement


def image(labels, brightness=BRIGHTNESS, seed=0):
    """The labels as a scanner might show them: a little blurred, with noise of its own."""
    blurred = gaussian_filter(np.array(brightness)[labels], [0.5 if size > 4 else 0 for size in labels.shape])
    return (blurred + np.random.default_rng(seed).normal(0, 0.02, labels.shape)).astype(np.float32)


def dice(one, other):
    """The mean of the four structures."""
    return np.mean([2 * ((one == c) & (other == c)).sum() / ((one == c).sum() + (other == c).sum()) for c in range(4)])


def at_relative_positions(volume, shape, shares=0.0, order=1):
    """What a volume shows at each voxel of one of another shape, some shares of each axis aside."""
    size = np.reshape(volume.shape, (3, 1, 1, 1))
    places = (np.indices(shape) + 0.5) / np.reshape(shape, (3, 1, 1, 1)) + shares
    return map_coordinates(volume.astype(float), places * size - 0.5, order=order, mode="nearest")


def in_voxels(displacement, shape):
    """(3, K, J, I) at every voxel."""
    shares = [at_relative_positions(one, shape) for one in displacement.field[0].numpy()]
    return np.stack(shares) * np.reshape(shape, (3, 1, 1, 1))


def length(displacement):
    return np.sqrt((displacement**2).sum(0))


def registered(fixed, moving, **options):
    return registrable(fixed).displacement(registrable(moving), **options)


def moved_labels(displacement, labels, shape=SHAPE):
    return displacement.moved(labels, shape, nearest=True).numpy().astype(int)


def mind_ssc(volume):
    """The descriptors as the paper describes them, (12, k, j, i)."""
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
    return np.exp(-unlike / np.clip(scale, 1e-3 * scale.mean(), 1e3 * scale.mean()))


def faint_in_part(volume):
    volume[:, : volume.shape[1] // 2] *= 1e-3
    return volume


def one_bright_voxel(volume):
    volume[:] = 0
    volume[3, 10, 12] = 1
    return volume


@pytest.mark.parametrize("change", [lambda volume: volume, faint_in_part, one_bright_voxel])
def test_descriptors_are_those_of_the_paper(change):
    volume = change(waves((20, 48, 40), 1, 1, 3)[0].astype(np.float32))
    descriptors = registrable(volume).descriptors
    assert descriptors.dtype == torch.float32
    np.testing.assert_allclose(descriptors.numpy()[0], mind_ssc(volume), atol=1e-5)


def test_large_volumes_are_described_at_most_so_finely_and_any_at_the_size_asked_for():
    small = registrable(np.zeros((50, 70, 66), np.float32)).descriptors
    assert small.shape == (1, 12, *SIZE)
    volume = waves((5, 80, 10), 1, 1, 0)[0].astype(np.float32)
    for size, seen in ((None, (5, 64, 10)), ((7, 40, 12), (7, 40, 12))):
        expected = mind_ssc(at_relative_positions(volume, seen))
        np.testing.assert_allclose(registrable(volume, size).descriptors.numpy()[0], expected, atol=1e-4)


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
    assert length(in_voxels(found, SHAPE) - true).mean() < error


def test_descent_comes_closer_than_the_search_and_the_search_than_nothing():
    moving, fixed, true = pair()
    away = [
        length(in_voxels(registered(image(fixed), image(moving, seed=1), iterations=n), SHAPE) - true).mean()
        for n in (60, 0)
    ]
    assert 2 * away[0] < away[1] < 0.8 * length(true).mean()


def test_shifts_as_long_as_the_search_looks_are_found():
    labels = waves((24, 48, 48), 4, 2.5, 0).argmax(0)
    shift = np.array([3, -7, 7])
    found = registered(image(np.roll(labels, -shift, (0, 1, 2))), image(labels, seed=1))
    inner = in_voxels(found, labels.shape)[:, 8:-8, 12:-12, 12:-12]
    np.testing.assert_allclose(inner.mean((1, 2, 3)), shift, atol=0.3)


def test_a_moving_volume_of_another_size_lies_on_the_fixed_one_by_relative_position():
    moving, fixed, _ = pair()
    finer = at_relative_positions(moving, (24, 40, 50), order=0).astype(int)
    found = registrable(image(fixed)).displacement(registrable(image(finer, seed=1), SHAPE))
    assert dice(at_relative_positions(finer, SHAPE, order=0), fixed) < 0.7
    assert dice(moved_labels(found, finer), fixed) > 0.86


@pytest.mark.parametrize("shape", [(9, 14, 20), (4, 7, 5)], ids=["a field as fine as the volume", "a coarser field"])
def test_moved_volumes_show_what_lies_where_the_field_says(shape):
    rng = np.random.default_rng(0)
    fixed, volume = (9, 14, 20), rng.random((13, 11, 30), np.float32)
    field = rng.uniform(-0.3, 0.3, (3, *shape)).astype(np.float32)  # leads out of the volume, too
    displacement = Displacement(torch.from_numpy(field)[None])
    shares = np.stack([at_relative_positions(one, fixed) for one in field])
    linear = displacement.moved(volume, fixed)
    assert linear.dtype == torch.float32
    np.testing.assert_allclose(linear.numpy(), at_relative_positions(volume, fixed, shares), atol=1e-4)
    nearest = displacement.moved(volume, fixed, nearest=True).numpy()
    differs = nearest != at_relative_positions(volume, fixed, shares, order=0).astype(np.float32)
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
    assert length(in_voxels(found, within)).max() < 0.4
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
    np.testing.assert_allclose(in_voxels(twice, SHAPE), in_voxels(once, SHAPE), atol=1e-2)


def test_two_runs_find_the_same_to_the_bit():
    moving, fixed, _ = pair()
    one, other = (registered(image(fixed), image(moving, seed=1)).field for _ in range(2))
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    "shape", [(1, 30, 33), (2, 37, 34), (5, 37, 34), (15, 33, 31), (3, 2, 1), (1, 1, 1)], ids=lambda shape: str(shape)
)
def test_volumes_thinner_than_a_block_and_of_odd_sizes_are_registered(shape):
    moving, fixed, _ = pair(shape, (0 if shape[0] < 8 else 1, 2, 2), 1)
    found = registered(image(fixed), image(moving, seed=1))
    assert found.field.isfinite().all()
    assert found.moved(moving, shape).shape == shape
    if np.prod(shape) > 500:
        assert dice(moved_labels(found, moving, shape), fixed) > dice(moving, fixed) + 0.08
    if shape[0] == 1:
        assert not in_voxels(found, shape)[0].any(), "a single slice has nowhere to go"


@pytest.mark.parametrize("value", [0, 7])
def test_volumes_that_show_nothing_stay_where_they_are(value):
    nothing = np.full(SHAPE, value, np.float32)
    assert length(in_voxels(registered(nothing, nothing), SHAPE)).max() < 1e-3
    something = image(pair()[0])
    for fixed, moving in ((nothing, something), (something, nothing)):
        assert registered(fixed, moving, iterations=5).field.isfinite().all()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_callers_that_ask_for_no_gradients_get_the_same(mode):
    moving, fixed, _ = pair()
    seen = image(fixed), image(moving, seed=1)
    expected = registered(*seen).field
    with mode():
        found = registered(*seen)
        assert found.moved(moving, SHAPE).shape == SHAPE
    assert torch.equal(found.field, expected)
    assert not found.field.requires_grad
    assert not torch.equal(expected, registered(*seen, iterations=0).field)


@pytest.mark.parametrize(("shape", "most", "mean"), [(SHAPE, 1e-5, 1e-5), ((4, 200, 8), 0.03, 1.2e-3)])
def test_a_class_lies_where_its_moved_masks_lie_in_the_mean_and_blurred(shape, most, mean):
    assert (max(shape) > registration._FINEST) == (most > 1e-3)
    masks = [waves(size, 1, [0.06 * n for n in size], k)[0] > 0 for k, size in enumerate([shape, shape, (10, 50, 20)])]
    shares = np.array([[0, 0, 0], [0, 0, 0], [0.1, -0.05, 0.2]])
    moved = [
        at_relative_positions(mask, shape, share[:, None, None, None])
        for mask, share in zip(masks, shares, strict=True)
    ]
    fields = (torch.tensor(share, dtype=torch.float32).view(1, 3, 1, 1, 1) for share in shares)
    got = mean_of_moved(zip(map(Displacement, fields), masks, strict=True), shape, 0.03)
    assert got.shape == shape
    assert got.dtype == np.float32
    assert got.min() >= 0
    assert got.max() <= 1
    expected = gaussian_filter(np.mean(moved, 0), [0.03 * n for n in shape], mode="nearest")
    assert np.ptp(expected) > 0.9
    assert np.abs(got - expected).max() < most
    assert np.abs(got - expected).mean() < mean


def test_only_nvidia_gpus_register():
    assert registration_device(torch.device("cuda", 1)) == torch.device("cuda", 1)
    assert registration_device(torch.device("mps")) == registration_device(torch.device("cpu")) == torch.device("cpu")
