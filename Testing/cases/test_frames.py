"""Frames against the official preparation written with Pillow on RGB pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

from SSLSegLib.cases.frames import IMAGENET_MEAN, IMAGENET_STD, iterate_frames, logits_to_grid, slices_to_frames


def grey(channels=1, slices=3, rows=37, columns=52):
    return np.random.default_rng(4).uniform(0, 255, (channels, slices, rows, columns)).astype(np.float32)


def official(slice_rgb, size):
    """(J, I, 3) float to a frame: uint8 by truncation, RGB, Pillow's default resampling, ImageNet statistics."""
    picture = Image.fromarray(slice_rgb.astype(np.uint8), "RGB").resize((size, size))
    frame = torch.from_numpy(np.array(picture).astype(np.float32)).permute(2, 0, 1) / 255.0
    return (frame - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]


@pytest.mark.parametrize("size", [16, 64])
@pytest.mark.parametrize("shape", [(37, 52), (52, 37), (1, 9)])
def test_frames_are_those_of_the_official_preparation(size, shape):
    display = grey(rows=shape[0], columns=shape[1])
    frames = slices_to_frames(display, size)
    assert frames.shape == (3, 3, size, size)
    assert frames.dtype == torch.float32
    for frame, one in zip(frames, display[0], strict=True):
        torch.testing.assert_close(frame, official(np.repeat(one[..., None], 3, axis=2), size), atol=1e-6, rtol=0)


def test_three_channels_are_red_green_and_blue():
    display = grey(channels=3)
    expected = official(display[:, 1].transpose(1, 2, 0), 24)
    torch.testing.assert_close(slices_to_frames(display, 24)[1], expected, atol=1e-6, rtol=0)


def test_two_and_five_channels_become_three_colours_that_hold_all_of_them():
    two, five = grey(channels=2), grey(channels=5)
    mixed = np.stack([two[0], two[1], two.mean(axis=0)])
    torch.testing.assert_close(slices_to_frames(two, 24), slices_to_frames(mixed, 24))
    thirds = np.stack([five[:2].mean(axis=0), five[2:4].mean(axis=0), five[4]])
    torch.testing.assert_close(slices_to_frames(five, 24), slices_to_frames(thirds, 24))


def test_a_slice_of_the_right_size_is_not_rounded():
    display = grey(rows=20, columns=20)
    mean, std = (np.array(values, np.float32)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    expected = (np.repeat(display[:, 0], 3, axis=0) / 255 - mean) / std
    np.testing.assert_allclose(slices_to_frames(display, 20)[0].numpy(), expected, atol=1e-6)


def test_chosen_slices_come_in_the_order_asked_for():
    display = grey(slices=6)
    torch.testing.assert_close(slices_to_frames(display, 16, [4, 0, 4]), slices_to_frames(display, 16)[[4, 0, 4]])
    assert slices_to_frames(display, 16, []).shape == (0, 3, 16, 16)


def test_frames_in_batches_are_the_same_frames():
    display = grey(slices=5)
    batches = list(iterate_frames(display, 16, batch=2))
    assert [list(indices) for indices, _ in batches] == [[0, 1], [2, 3], [4]]
    torch.testing.assert_close(torch.cat([frames for _, frames in batches]), slices_to_frames(display, 16))


def test_logits_return_to_the_grid_as_half_pixel_bilinear_interpolation():
    """Against SciPy at pixel centres, edges held: columns of a ramp must land between their neighbours."""
    from scipy.ndimage import map_coordinates

    logits = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0))
    rows, columns = 11, 19
    at = np.meshgrid(
        (np.arange(rows) + 0.5) * 8 / rows - 0.5, (np.arange(columns) + 0.5) * 8 / columns - 0.5, indexing="ij"
    )
    expected = np.stack([map_coordinates(one, np.clip(at, 0, 7), order=1, mode="nearest") for one in logits.numpy()])
    np.testing.assert_allclose(logits_to_grid(logits, (rows, columns)).numpy(), expected, atol=1e-5)


def test_shape_and_absence_survive_the_way_back():
    torch.testing.assert_close(logits_to_grid(torch.full((3, 4, 4), -1024.0), (7, 5)), torch.full((3, 7, 5), -1024.0))
