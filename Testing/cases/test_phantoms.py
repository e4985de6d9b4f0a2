"""The procedurally generated cohort: reproducible, of one population, and not solved by grey levels or by place."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.cases.intensities import to_display_range
from SSLSegLib.cases.phantoms import PHANTOM_CLASSES, make_phantom, make_phantom_cohort
from SSLSegLib.cases.reading import read_label, read_volume
from SSLSegLib.errors import CohortError

SMALL = (12, 40, 48)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return make_phantom_cohort(
        tmp_path_factory.mktemp("phantoms"), seed=3, labelled=2, unlabelled=2, test=1, shape=SMALL
    )


@pytest.fixture(scope="module")
def subjects():
    return [make_phantom(3, number, shape=(24, 80, 96)) for number in range(3)]


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_a_cohort_is_written_and_read_like_anyones(cohort):
    assert Cohort.load(cohort.folder) == cohort
    assert [len(group) for group in (cohort.labelled, cohort.unlabelled, cohort.test)] == [2, 2, 1]
    for case in cohort.cases:
        which = "label" if case.role == "labelled" else "reference"
        volume, label = read_volume(cohort, case), read_label(cohort, case, which)
        assert volume.array.shape == (1, *SMALL)
        assert set(np.unique(label.array)) == {0, 1, 2}
        assert case.label is None or case.reference is None


def test_grids_are_anisotropic_oblique_and_not_square(cohort):
    grid = read_volume(cohort, cohort.cases[0]).geometry
    assert grid.spacing[0] > 1.5 * grid.spacing[1]
    assert grid.shape[1] != grid.shape[2]
    directions = np.abs(grid.ijk_to_ras[:3, :3] / grid.spacing[::-1])
    assert 0.005 < directions[~np.eye(3, dtype=bool)].max() < 0.5


def test_the_same_seed_gives_the_same_files_and_cases_do_not_depend_on_their_number(cohort, tmp_path):
    again = make_phantom_cohort(tmp_path / "again", seed=3, labelled=2, unlabelled=1, test=0, shape=SMALL)
    other = make_phantom_cohort(tmp_path / "other", seed=4, labelled=2, unlabelled=1, test=0, shape=SMALL)
    for case in again.cases:
        before = read_volume(cohort, cohort.case(case.id))
        np.testing.assert_array_equal(read_volume(again, case).array, before.array)
        assert read_volume(again, case).geometry.matches(before.geometry)
        assert not np.array_equal(read_volume(other, case).array, before.array)


def test_a_folder_with_another_cohort_is_left_alone(cohort):
    before = (cohort.folder / "cohort.json").read_bytes()
    with pytest.raises(CohortError, match="another cohort"):
        make_phantom_cohort(cohort.folder, seed=3, labelled=1, unlabelled=1, test=0, shape=SMALL)
    assert (cohort.folder / "cohort.json").read_bytes() == before


def test_classes_can_be_chosen_and_are_numbered_in_their_order(tmp_path):
    chosen = make_phantom_cohort(
        tmp_path, seed=3, labelled=1, unlabelled=0, test=0, shape=SMALL, classes=("spleen", "liver")
    )
    assert [(one.value, one.name) for one in chosen.classes] == [(1, "spleen"), (2, "liver")]
    label = read_label(chosen, chosen.cases[0]).array
    tissues = make_phantom(3, 0, shape=SMALL)[1]
    np.testing.assert_array_equal(label == 2, tissues == PHANTOM_CLASSES["liver"].value)
    with pytest.raises(CohortError, match="no 'brain'"):
        make_phantom_cohort(tmp_path / "b", seed=3, classes=("brain",))


def test_every_target_is_there_on_some_slices_and_absent_on_others(subjects):
    for _, tissues in subjects:
        for segment in PHANTOM_CLASSES.values():
            slices = (tissues == segment.value).any(axis=(1, 2))
            assert 5 <= slices.sum() < len(slices)


def test_no_intensity_threshold_finds_the_targets(subjects):
    """Not even the best one chosen by looking at the answer, on a denoised image."""
    for volume, tissues in subjects:
        display = gaussian_filter(to_display_range(volume, "MR")[0], (0, 0.7, 0.7))
        for name, limit in (("liver", 0.7), ("kidneys", 0.5)):
            mask = tissues == PHANTOM_CLASSES[name].value
            lower = np.percentile(display[mask], (0.5, 5, 20, 40))
            upper = np.percentile(display[mask], (60, 80, 95, 99.5))
            assert max(dice((display >= a) & (display <= b), mask) for a in lower for b in upper) < limit


def test_subjects_differ_yet_belong_to_one_population(subjects):
    liver = [tissues == PHANTOM_CLASSES["liver"].value for _, tissues in subjects]
    overlaps = [dice(liver[0], other) for other in liver[1:]]
    assert max(overlaps) < 0.93
    assert min(overlaps) > 0.5


def test_the_spleen_is_as_bright_as_the_liver_and_the_stomach_as_the_kidneys(subjects):
    """On average: in one subject the bias field adds its own difference."""
    ratios = {("spleen", "liver"): [], ("stomach", "kidneys"): []}
    for volume, tissues in subjects:
        means = {n: volume.array[0][tissues == one.value].mean() for n, one in PHANTOM_CLASSES.items()}
        for pair, found in ratios.items():
            found.append(means[pair[0]] / means[pair[1]])
    for found in ratios.values():
        assert np.mean(found) == pytest.approx(1, abs=0.15)
