from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import make_cohort, tiny_options, truth_of

from SSLSegLib.unimatch.data import StepBatches
from SSLSegLib.unimatch.losses import IGNORE
from SSLSegLib.unimatch.slices import StackBuilder, cohort_pixel_mm, colours
from SSLSegLib.unimatch.views import outside, warp


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_cohort(tmp_path_factory.mktemp("cohort"), channels=2)


def batches(cohort, folder: Path, *, guided: bool = False, **changes) -> StepBatches:
    maps = (lambda case, geometry: truth_of(cohort, case)) if guided else None
    builder = StackBuilder(cohort, folder, 1.25, maps)
    labelled = builder.build(cohort.labelled)
    return StepBatches(labelled, builder.build(cohort.unlabelled), tiny_options(**changes))


def test_a_batch_depends_on_the_step_and_the_seed_alone(cohort, tmp_path):
    one, other = batches(cohort, tmp_path), batches(cohort, tmp_path)
    _ = one[0], one[1]
    first, again = one[3], other[3]
    for name in ("images", "labels", "weak", "ignore"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert torch.equal(first.strong[1], again.strong[1])
    assert not torch.equal(first.images, one[4].images)
    assert not torch.equal(first.images, batches(cohort, tmp_path, seed=7)[3].images)


def test_labels_lie_on_the_pixels_they_name_in_volumes_of_any_size_and_spacing(cohort, tmp_path):
    drawn = batches(cohort, tmp_path, foreground=1.0)
    for step in range(6):
        batch = drawn[step]
        red = batch.images[..., 0].float()
        for image, label in zip(red, batch.labels, strict=True):
            assert set(label.unique().tolist()) <= {0, 1, 2, IGNORE}
            for value in (1, 2):
                if (label == value).sum() > 20:
                    assert image[label == value].mean() > image[label == 0].mean() + 60
            assert (image[label == IGNORE] == 0).all()


def test_a_class_that_most_slices_lack_is_seen_as_often_as_the_others(cohort, tmp_path):
    def share(foreground: float) -> float:
        drawn = batches(cohort, tmp_path, foreground=foreground, batch=8)
        return float(torch.cat([(drawn[s].labels == 2).flatten(1).any(1) for s in range(6)]).float().mean())

    assert share(1.0) > 0.4
    assert share(0.0) < 0.35


def test_the_origin_of_a_view_cuts_the_same_view_again(cohort, tmp_path):
    drawn = batches(cohort, tmp_path)
    cases = set()
    for step in range(4):
        batch = drawn[step].to("cpu")
        assert len(batch.origins) == len(batch.weak)
        for origin, weak, ignore in zip(batch.origins, batch.weak, batch.ignore, strict=True):
            stack = drawn.unlabelled[origin.case]
            picture = torch.from_numpy(stack.image[origin.slice].astype(np.float32)).movedim(-1, 0)
            assert torch.equal(warp(picture, origin.view).round().byte().movedim(0, -1), weak)
            assert torch.equal(outside(origin.view, origin.shape), ignore)
            assert origin.shape == stack.shape
            cases.add(origin.case)
    assert len(cases) > 1


def test_the_guide_is_warped_like_the_weak_view(cohort, tmp_path):
    drawn = batches(cohort, tmp_path, guided=True)
    seen = 0
    for step in range(8):
        batch = drawn[step]
        assert batch.guide.shape == (2, 2, 32, 32)
        for image, guide in zip(batch.weak[..., 0].float(), batch.guide, strict=True):
            ball, background = guide[0] > 0.9, guide.sum(0) < 0.1
            inside = background & (image > 0)
            if ball.sum() > 20 and inside.any():
                seen += 1
                assert image[ball].mean() > image[inside].mean() + 40
    assert seen >= 3


def test_labels_of_unlabelled_cases_are_never_read(cohort, tmp_path):
    stack = StackBuilder(cohort, tmp_path, 1.25).build(cohort.unlabelled)[0]
    assert stack.label is None
    assert stack.guide is None


def test_slices_finer_than_the_pixels_are_brought_to_them_and_coarser_ones_kept(cohort, tmp_path):
    fine, mixed = StackBuilder(cohort, tmp_path, 1.25).build(cohort.labelled)
    assert fine.shape == (32, 29)  # 40 x 36 pixels of 1 mm
    assert fine.pixel == pytest.approx((1.0, 1.25 / (36 / 29)))
    assert mixed.shape == (30, 30)  # 1.5 mm stays, 50 pixels of 0.75 mm become 30
    assert mixed.pixel == pytest.approx((1.25 / 1.5, 1.0))


def test_slices_of_other_options_are_made_anew_and_those_of_the_same_are_kept(cohort, tmp_path):
    truth = StackBuilder(cohort, tmp_path / "other", 2.5).build(cohort.labelled)
    StackBuilder(cohort, tmp_path, 1.25).build(cohort.labelled)  # and ended here, before a training began
    again = StackBuilder(cohort, tmp_path, 2.5).build(cohort.labelled)
    for ours, theirs in zip(again, truth, strict=True):
        assert ours.pixel == theirs.pixel
        np.testing.assert_array_equal(ours.image, theirs.image)
        np.testing.assert_array_equal(ours.label, theirs.label)
    made = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")}
    StackBuilder(cohort, tmp_path, 2.5).build(cohort.labelled)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.npy")} == made
    turned = cohort.model_copy(update={"classes": cohort.classes[::-1]})
    first = StackBuilder(turned, tmp_path, 2.5).build(turned.labelled)[0]
    np.testing.assert_array_equal(first.label, np.array([0, 2, 1])[truth[0].label])


def test_the_median_case_fills_a_view(cohort):
    assert cohort_pixel_mm(cohort, cohort.cases, 20) == pytest.approx(np.median([40, 45, 40, 40, 45]) / 20)


def test_supervised_batches_are_twice_as_large_and_have_nothing_unlabelled(cohort, tmp_path):
    batch = batches(cohort, tmp_path, method="supervised")[0]
    assert len(batch.images) == 4
    assert batch.weak is None


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels_becomes_three_colours(channels):
    display = np.random.default_rng(0).uniform(0, 255, (channels, 2, 4, 4)).astype(np.float32)
    rgb = colours(display)
    assert rgb.shape == (3, 2, 4, 4)
    assert np.allclose(rgb.mean(), display.mean(), atol=25)
