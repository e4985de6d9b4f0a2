import numpy as np

from SSLSegLib.vessa.augment import TemplateRules, augment_template

PLACES_ONLY = TemplateRules(blur=0, sharpen=0)


def template(size=(60, 80)):
    rows, columns = np.indices(size)
    mask = (rows - 25) ** 2 + (columns - 45) ** 2 < 200
    return np.repeat((mask * 200 + 20).astype(np.uint8)[..., None], 3, axis=2), mask


def test_image_and_mask_are_moved_together():
    picture, mask = template()
    for seed in range(20):
        moved, drawn = augment_template(np.random.default_rng(seed), picture, mask, PLACES_ONLY)
        assert moved.shape == picture.shape
        assert drawn.shape == mask.shape
        assert drawn.dtype == bool
        bright = moved[..., 0] > 120
        assert (bright != drawn).sum() < 0.15 * drawn.sum()


def test_a_crop_of_the_whole_without_turn_or_flip_changes_nothing():
    picture, mask = template()
    still = TemplateRules(flip=0, rotation=0, crop=(1.0, 1.0), blur=0, sharpen=0)
    moved, drawn = augment_template(np.random.default_rng(0), picture, mask, still)
    np.testing.assert_array_equal(moved, picture)
    np.testing.assert_array_equal(drawn, mask)


def test_a_crop_keeps_the_part_of_the_area_that_it_says():
    picture, mask = template()
    crop = TemplateRules(flip=0, rotation=0, crop=(0.7, 0.7), blur=0, sharpen=0)
    areas = []
    for seed in range(40):
        _, drawn = augment_template(np.random.default_rng(seed), picture, mask, crop)
        areas.append(mask.sum() / drawn.sum())
    assert abs(max(areas) - 0.7) < 0.1 or abs(np.median(areas) - 0.7) < 0.05


def test_both_flips_happen():
    picture, mask = template()
    flips = TemplateRules(flip=0.5, rotation=0, crop=(1.0, 1.0), blur=0, sharpen=0)
    seen = {augment_template(np.random.default_rng(seed), picture, mask, flips)[1].tobytes() for seed in range(40)}
    expected = {each.tobytes() for each in (mask, mask[::-1], mask[:, ::-1], mask[::-1, ::-1])}
    assert seen == expected


def test_blur_and_sharpening_leave_the_mask_alone():
    picture, mask = template()
    photometric = TemplateRules(flip=0, rotation=0, crop=(1.0, 1.0), blur=1, sharpen=1)
    moved, drawn = augment_template(np.random.default_rng(0), picture, mask, photometric)
    np.testing.assert_array_equal(drawn, mask)
    assert (moved != picture).any()


def test_a_mask_at_the_border_never_leaves_the_template():
    picture = np.zeros((40, 40, 3), np.uint8)
    mask = np.zeros((40, 40), bool)
    mask[0, 0] = True
    for seed in range(30):
        assert augment_template(np.random.default_rng(seed), picture, mask)[1].any()
