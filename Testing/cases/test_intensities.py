"""Grey levels against a second writing of the official rule, and on the data that breaks it."""

import numpy as np
import pytest

from SSLSegLib.cases.cohort import Window
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.intensities import to_display_range, zero_is_background
from SSLSegLib.cases.volume import Volume
from SSLSegLib.errors import CaseError


def volume(*channels):
    array = np.stack(channels).astype(np.float32)
    return Volume(array, Geometry(array.shape[1:], np.eye(4)))


def masked_body(seed=0):
    """Positive noise in a ball, exactly 0 around it."""
    k, j, i = np.ogrid[-1:1:12j, -1:1:40j, -1:1:36j]
    body = k**2 + j**2 + i**2 < 0.8
    return np.where(body, np.random.default_rng(seed).gamma(4.0, 60.0, body.shape), 0.0), body


def official(image):
    """The published rule, line by line."""
    lower, upper = np.percentile(image[image > 0], 0.5), np.percentile(image[image > 0], 99.5)
    data = np.clip(image, lower, upper)
    data = (data - data.min()) / (data.max() - data.min()) * 255.0
    data[image == 0] = 0
    return data


def test_mr_with_zero_background_follows_the_official_rule():
    image, _ = masked_body()
    image = image.astype(np.float32)
    np.testing.assert_allclose(to_display_range(volume(image), "MR")[0], official(image), atol=2e-3)


def test_every_channel_is_stretched_for_itself():
    first, second = (masked_body(seed)[0].astype(np.float32) for seed in (0, 1))
    both = to_display_range(volume(first, second * 50), "MR")
    np.testing.assert_allclose(both[0], official(first), atol=2e-3)
    np.testing.assert_allclose(both[1], official(second), atol=2e-3)


def test_z_scored_data_keeps_its_darker_half():
    image = np.random.default_rng(1).normal(size=(8, 30, 30)).astype(np.float32)
    image[0, :3, :3] = 0  # some exact zeros in the middle of the range
    display = to_display_range(volume(image), "MR")[0]
    ours = (image > -2) & (image < 2)
    assert np.corrcoef(image[ours], display[ours])[0, 1] > 0.999
    assert 100 < display[0, 0, 0] < 155, "an exact zero is an ordinary grey level here"
    assert np.median(display) == pytest.approx(127, abs=8)


def test_z_scored_data_looks_as_before_it_was_z_scored():
    image, _ = masked_body()
    raw = image + 5  # no exact zeros any more: the official rule takes the whole volume
    scored = (raw - raw.mean()) / raw.std()
    np.testing.assert_allclose(to_display_range(volume(scored), "MR"), to_display_range(volume(raw), "MR"), atol=0.05)


def test_a_body_normalised_alone_keeps_its_background_black():
    image, body = masked_body()
    scored = np.where(body, (image - image[body].mean()) / image[body].std(), 0).astype(np.float32)
    assert zero_is_background(scored)
    display = to_display_range(volume(scored), "MR")[0]
    assert (display[~body] == 0).all()
    np.testing.assert_allclose(display[body], official(image.astype(np.float32))[body], atol=0.5)


def test_ct_is_windowed_in_hounsfield_units_whatever_else_is_in_the_volume():
    image = np.array([[[-1000.0, -160.0, 40.0, 240.0, 3000.0]]])
    expected = [0, 0, 127.5, 255, 255]
    np.testing.assert_allclose(to_display_range(volume(image), "CT", Window(level=40, width=400))[0, 0, 0], expected)
    inside = image[..., 2:3]
    np.testing.assert_allclose(to_display_range(volume(inside), "CT", Window(level=40, width=400)).ravel(), 127.5)


def test_ct_without_a_window_is_refused():
    with pytest.raises(CaseError, match="window"):
        to_display_range(volume(np.zeros((1, 2, 2))), "CT")


@pytest.mark.parametrize("value", [0.0, 7.0, -7.0])
def test_a_constant_volume_is_black_and_finite(value):
    assert (to_display_range(volume(np.full((2, 3, 3), value)), "MR") == 0).all()


def test_the_input_is_left_alone_and_the_output_is_float32_in_range():
    image = np.random.default_rng(1).normal(size=(3, 9, 8)).astype(np.float32)
    before = volume(image)
    kept = before.array.copy()
    display = to_display_range(before, "MR")
    np.testing.assert_array_equal(before.array, kept)
    assert display.dtype == np.float32
    assert display.min() >= 0
    assert display.max() <= 255
