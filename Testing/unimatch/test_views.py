import dataclasses

import numpy as np
import pytest
import torch

from SSLSegLib.unimatch.views import (
    VIEWS,
    ViewRules,
    WeakView,
    cutmix,
    draw_cutmix_box,
    draw_weak_view,
    normalise,
    outside,
    strong_view,
    warp,
)

STILL = ViewRules(scale=(1.0, 1.0), flip=0.0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_at_scale_one_a_slice_of_the_views_size_is_unchanged():
    image = torch.rand(2, 16, 16)
    view = draw_weak_view(rng(), STILL, (16, 16), (1.0, 1.0), 16)
    torch.testing.assert_close(warp(image, view), image)
    assert not outside(view, (16, 16)).any()


def test_a_crop_takes_a_window_of_a_larger_slice_and_a_smaller_one_is_padded_below_and_right():
    image = torch.arange(30 * 24.0).reshape(1, 30, 24)
    crop = warp(image, draw_weak_view(rng(3), STILL, (30, 24), (1.0, 1.0), 8), "nearest")[0].long()
    row, column = divmod(int(crop[0, 0]), 24)
    assert torch.equal(crop, image[0, row : row + 8, column : column + 8].long())
    view = draw_weak_view(rng(), STILL, (5, 6), (1.0, 1.0), 8)
    padded = warp(torch.ones(1, 5, 6), view)[0]
    expected = torch.zeros(8, 8)
    expected[:5, :6] = 1
    assert torch.equal(padded, expected)
    assert torch.equal(outside(view, (5, 6)), expected == 0)


def test_a_flip_mirrors_left_and_right_only():
    image = torch.rand(1, 6, 6)
    view = draw_weak_view(rng(), dataclasses.replace(STILL, flip=1.0), (6, 6), (1.0, 1.0), 6)
    torch.testing.assert_close(warp(image, view), image.flip(-1))


def test_pixels_of_other_spacing_are_brought_to_the_views_spacing():
    view = draw_weak_view(rng(), STILL, (20, 10), (2.0, 1.0), 10)
    rows = torch.arange(20.0)[:, None].expand(20, 10)[None]
    warped = warp(rows, view)[0]
    torch.testing.assert_close(warped[:, 0], torch.arange(10.0) * 2 + 0.5)


def test_image_label_and_probability_are_moved_by_the_same_view():
    truth = torch.zeros(1, 40, 40)
    truth[0, 8:30, 12:25] = 1
    for seed in range(4):
        view = draw_weak_view(rng(seed), VIEWS["medical"], (40, 40), (1.0, 1.0), 24)
        soft, hard = warp(truth, view)[0], warp(truth, view, "nearest")[0]
        assert torch.equal(hard.unique(), torch.tensor([0.0, 1.0]))
        assert ((soft > 0.5) == (hard > 0.5)).float().mean() > 0.99


def test_the_crop_holds_the_pixel_in_focus():
    image = torch.zeros(1, 100, 90)
    image[0, 77, 11] = 1
    for seed in range(25):
        view = draw_weak_view(rng(seed), ViewRules(), (100, 90), (1.0, 1.0), 32, focus=(77, 11))
        assert warp(image, view).max() > 0.05, seed


def test_official_scales_are_drawn_between_half_and_double():
    sides = [np.linalg.norm(draw_weak_view(rng(s), ViewRules(), (9, 9), (1.0, 1.0), 8).matrix[0]) for s in range(300)]
    assert 0.5 <= min(sides) < 0.52
    assert 1.9 < max(sides) <= 2.0


def grey_image() -> np.ndarray:
    ramp = np.linspace(20, 230, 24 * 24).reshape(24, 24, 1)
    return np.repeat(ramp, 3, 2).astype(np.uint8)


def test_strong_views_change_grey_levels_and_not_places():
    edges = np.zeros((24, 24, 3), np.uint8)
    edges[6:18, 9:20] = 200
    changed = 0
    for seed in range(12):
        seen = strong_view(rng(seed), dataclasses.replace(VIEWS["medical"], blur=0.0), edges)
        assert seen.shape == edges.shape
        assert (np.unique(seen[6:18, 9:20]).size, np.unique(seen[:6]).size) == (1, 1)
        assert seen[10, 10, 0] > seen[0, 0, 0]
        changed += not np.array_equal(seen, edges)
    assert changed >= 10


def test_the_medical_preset_neither_mixes_channels_nor_mirrors():
    colours = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    colours[..., 1] = 90  # a flat channel stays flat if no other channel leaks into it
    for seed in range(20):
        seen = strong_view(rng(seed), VIEWS["medical"], colours)
        assert np.unique(seen[..., 1]).size == 1
        assert np.linalg.det(draw_weak_view(rng(seed), VIEWS["medical"], (8, 8), (1.0, 1.0), 8).matrix) > 0
    official = [np.unique(strong_view(rng(seed), VIEWS["official"], colours)[..., 1]).size for seed in range(20)]
    assert max(official) > 1


def test_the_same_draw_gives_the_same_view():
    image = grey_image()
    assert np.array_equal(strong_view(rng(5), VIEWS["official"], image), strong_view(rng(5), VIEWS["official"], image))
    assert not np.array_equal(
        strong_view(rng(5), VIEWS["official"], image), strong_view(rng(6), VIEWS["official"], image)
    )


def test_boxes_have_the_official_area_and_sides_and_appear_half_of_the_time():
    boxes = [draw_cutmix_box(rng(seed), 64) for seed in range(400)]
    drawn = [box for box in boxes if box.any()]
    assert 0.4 < len(drawn) / len(boxes) < 0.6
    for box in drawn:
        rows, columns = box.any(1).sum(), box.any(0).sum()
        assert box.sum() == rows * columns
        assert 0.015 <= box.mean() <= 0.4
        assert 0.25 < rows / columns < 4


@pytest.mark.parametrize("batch", [1, 4, 5])
def test_cutmix_pastes_from_the_batch_in_reverse_order(batch):
    images = torch.arange(batch).float()[:, None, None, None].expand(batch, 3, 4, 4)
    boxes = torch.zeros(batch, 4, 4, dtype=torch.bool)
    boxes[:, 1:3, 2:] = True
    mixed = cutmix(images, boxes)
    for index in range(batch):
        assert (mixed[index][:, boxes[index]] == batch - 1 - index).all()
        assert (mixed[index][:, ~boxes[index]] == index).all()


def test_cutmix_moves_labels_confidences_and_ignore_masks_with_the_pixels():
    code = torch.rand(4, 6, 6)
    boxes = torch.from_numpy(np.stack([draw_cutmix_box(rng(seed), 6, 1.0) for seed in range(4)]))
    mixed = cutmix(code[:, None].expand(4, 3, 6, 6), boxes)[:, 0]
    assert torch.equal(cutmix(code, boxes), mixed)
    assert torch.equal(cutmix(code > 0.5, boxes), mixed > 0.5)
    assert torch.equal(cutmix((code * 9).long(), boxes), (mixed * 9).long())


def test_normalising_is_that_of_imagenet():
    image = torch.tensor([124, 116, 104], dtype=torch.uint8).expand(1, 2, 2, 3)
    assert normalise(image).shape == (1, 3, 2, 2)
    assert normalise(image).abs().max() < 0.02


def test_a_view_is_made_of_a_matrix_and_an_offset():
    view = WeakView(np.eye(2) * 2, np.array([1.5, 0.5]), 2)
    taken = warp(torch.arange(25.0).reshape(1, 5, 5), view, "nearest")
    assert taken[0].tolist() == [[11.0, 13.0], [21.0, 23.0]]
