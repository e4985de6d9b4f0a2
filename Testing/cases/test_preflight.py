"""The pre-flight against every kind of bad input, each made as a real file."""

import collections
import os
import shutil

import nibabel
import numpy as np
import pytest

from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.phantoms import make_phantom_cohort
from SSLSegLib.cases.preflight import Finding, check_cohort, raise_on_errors
from SSLSegLib.cases.reading import read_label_file, read_volume
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.cases.writing import write_label, write_scalar
from SSLSegLib.errors import CaseError, CohortError

FIRST, OTHER = "phantom_000", "phantom_002"  # a labelled and an unlabelled case


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return make_phantom_cohort(
        tmp_path_factory.mktemp("pristine") / "cohort",
        seed=8,
        labelled=2,
        unlabelled=1,
        test=1,
        shape=(8, 24, 28),
        classes=("liver", "spleen"),
    )


@pytest.fixture
def cohort(pristine, tmp_path):
    """A copy that a test may spoil."""
    return Cohort.load(shutil.copytree(pristine.folder, tmp_path / "cohort"))


def errors(cohort, **options):
    return [finding for finding in check_cohort(cohort, **options) if finding.severity == "error"]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def only_error(cohort, said, case_id, **options):
    """Exactly one error, naming the case and the way out, nothing written, and it stops the work."""
    before = contents(cohort.folder)
    found = errors(cohort, **options)
    assert len(found) == 1, [str(one) for one in found]
    assert said in found[0].problem
    assert found[0].case_id == case_id
    assert found[0].remedy
    assert contents(cohort.folder) == before
    with pytest.raises(CaseError if case_id else CohortError, match="What to do"):
        raise_on_errors(found)


def change_image(cohort, case_id, change):
    case = cohort.case(case_id)
    volume = read_volume(cohort, case)
    write_scalar(cohort.image_paths(case)[0], change(volume.array[0].copy()), volume.geometry)


def change_label(cohort, case_id, change):
    path = cohort.label_path(cohort.case(case_id))
    label = read_label_file(path, cohort.classes)
    write_scalar(path, change(label.array.copy()), label.geometry)


def test_a_sound_cohort_has_no_findings_and_nothing_is_written(cohort, tmp_path):
    before = contents(tmp_path)
    assert check_cohort(cohort, output=tmp_path / "new" / "results") == []
    assert contents(tmp_path) == before
    assert not (tmp_path / "new").exists()
    raise_on_errors([])


def test_a_missing_file(cohort):
    cohort.image_paths(cohort.case(OTHER))[0].unlink()
    only_error(cohort, "no file", OTHER)


def test_an_unreadable_file(cohort):
    cohort.label_path(cohort.case(FIRST)).write_bytes(b"not an image")
    only_error(cohort, "no NIfTI", FIRST)


@pytest.mark.parametrize("keep", [0.3, 0.9, 0.999])
def test_a_truncated_gzip(keep, cohort):
    path = cohort.image_paths(cohort.case(OTHER))[0]
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    only_error(cohort, "truncated", OTHER)


def test_a_gzip_damaged_in_the_middle(cohort):
    path = cohort.image_paths(cohort.case(OTHER))[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content)
    only_error(cohort, "damaged", OTHER)


def move_label(cohort, case_id, change):
    path = cohort.label_path(cohort.case(case_id))
    label = read_label_file(path, cohort.classes)
    moved = Geometry(label.geometry.shape, label.geometry.ijk_to_ras @ change)
    write_label(path, LabelMap(label.array, moved), cohort.classes, reference=moved)


def test_a_label_of_another_geometry_is_an_error_or_resampled_with_a_warning(cohort):
    shift = np.eye(4)
    shift[0, 3] = 1.5
    move_label(cohort, FIRST, shift)
    only_error(cohort, "another grid", FIRST)
    assert "--resample-labels" in errors(cohort)[0].remedy
    for found in (
        check_cohort(cohort, resample_labels=True),
        check_cohort(cohort.model_copy(update={"resample_labels": True})),
    ):
        assert [(one.severity, one.case_id) for one in found] == [("warning", FIRST)]
        assert "put onto the grid" in found[0].problem


def test_a_label_that_lies_outside_its_image_is_an_error_even_where_resampling_is_allowed(cohort):
    far = np.eye(4)
    far[:3, 3] = 500
    move_label(cohort, FIRST, far)
    only_error(cohort, "outside the image", FIRST, resample_labels=True)


def test_a_class_that_no_labelled_case_has(cohort):
    change_label(cohort, FIRST, lambda array: np.where(array == 2, 0, array))
    assert check_cohort(cohort) == []
    change_label(cohort, "phantom_001", lambda array: np.where(array == 2, 0, array))
    only_error(cohort, "'spleen' (value 2) is in none", None)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite(value, cohort):
    def spoil(array):
        array[3, 4, 5] = value
        return array

    change_image(cohort, OTHER, spoil)
    only_error(cohort, "1 voxel that is not finite", OTHER)


@pytest.mark.parametrize("ending", [".nii", ".nrrd", ".mha"])
def test_voxels_that_are_not_finite_in_other_formats(ending, cohort):
    case = cohort.case(OTHER)
    volume = read_volume(cohort, case)
    array = volume.array[0].copy()
    array[3, 4, 5] = np.nan
    path = cohort.image_paths(case)[0].with_name(f"other{ending}")
    write_scalar(path, array, volume.geometry)
    changed = case.model_copy(update={"images": (f"images/{path.name}",)})
    cases = tuple(changed if one.id == OTHER else one for one in cohort.cases)
    only_error(cohort.model_copy(update={"cases": cases}), "not finite", OTHER)


def test_infinities_that_cancel_are_found_too(cohort):
    def spoil(array):
        array[3, 4, 5:7] = np.inf, -np.inf
        return array

    change_image(cohort, OTHER, spoil)
    only_error(cohort, "2 voxels that are not finite", OTHER)


def test_a_constant_image(cohort):
    change_image(cohort, FIRST, lambda array: np.full_like(array, 7))
    only_error(cohort, "constant: every voxel is 7", FIRST)


@pytest.mark.parametrize("shape", [(28, 24), (28, 24, 8, 5)])
def test_a_picture_or_a_time_series(shape, cohort):
    path = cohort.image_paths(cohort.case(OTHER))[0]
    nibabel.save(nibabel.Nifti1Image(np.random.default_rng(0).random(shape, np.float32), np.eye(4)), path)
    only_error(cohort, f"{len(shape)} dimensions", OTHER)


def test_a_colour_image(cohort):
    path = cohort.image_paths(cohort.case(OTHER))[0]
    rgb = np.zeros((28, 24, 8), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nibabel.save(nibabel.Nifti1Image(rgb, np.eye(4)), path)
    only_error(cohort, "colour", OTHER)


def test_a_label_of_floating_point_numbers(cohort):
    change_label(cohort, FIRST, lambda array: array.astype(np.float32))
    only_error(cohort, "whole numbers", FIRST)


def test_a_label_value_that_is_no_class(cohort):
    def spoil(array):
        array[0, 0, 0] = 77
        return array

    change_label(cohort, FIRST, spoil)
    only_error(cohort, "no class: 77", FIRST)


def test_a_reference_is_checked_as_well_before_hours_are_spent(cohort):
    cohort.label_path(cohort.case(OTHER), "reference").unlink()
    only_error(cohort, "no file", OTHER)


def test_an_empty_label_is_a_warning(cohort):
    change_label(cohort, FIRST, np.zeros_like)
    assert [(one.severity, one.case_id) for one in check_cohort(cohort)] == [("warning", FIRST)]


def test_channels_must_be_the_same_in_every_case(cohort):
    case = cohort.case(OTHER)
    double = case.model_copy(update={"images": case.images * 2})
    cases = tuple(double if one.id == OTHER else one for one in cohort.cases)
    only_error(cohort.model_copy(update={"cases": cases}), "2 channels", OTHER)


def test_without_labelled_cases_nothing_can_be_learnt_and_without_unlabelled_ones_there_is_a_warning(cohort):
    only_error(cohort.model_copy(update={"cases": cohort.unlabelled}), "no labelled case", None)
    found = check_cohort(cohort.model_copy(update={"cases": cohort.labelled}))
    assert [one.severity for one in found] == ["warning"]
    assert "no unlabelled case" in found[0].problem


def test_one_image_in_two_cases_is_a_warning(cohort):
    twin = Case(id="twin", role="unlabelled", images=cohort.case(FIRST).images)
    found = check_cohort(cohort.model_copy(update={"cases": (*cohort.cases, twin)}))
    assert [(one.severity, one.case_id) for one in found] == [("warning", "twin")]


def test_an_output_folder_that_is_a_file(cohort, tmp_path):
    (tmp_path / "file").write_text("mine")
    only_error(cohort, "is a file", None, output=tmp_path / "file" / "results")
    assert (tmp_path / "file").read_text() == "mine"


def test_an_output_folder_that_cannot_be_written(cohort, tmp_path, monkeypatch):
    if os.geteuid() == 0:  # root may write anywhere; the operating system's answer is what is replaced
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    else:
        tmp_path.chmod(0o500)
    try:
        only_error(cohort, "Nothing can be written", None, output=tmp_path / "results")
    finally:
        tmp_path.chmod(0o700)


def test_a_full_output_folder(cohort, tmp_path, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    only_error(cohort, "GB are free", None, output=tmp_path / "results")


def test_a_ct_without_negative_values_is_a_warning(cohort):
    ct = Cohort.from_dict(cohort.to_dict() | {"modality": "CT", "window": {"level": 40, "width": 400}}, cohort.folder)
    assert {one.severity for one in check_cohort(ct)} == {"warning"}


def test_all_errors_are_said_at_once(cohort):
    cohort.image_paths(cohort.case(OTHER))[0].unlink()
    change_image(cohort, FIRST, lambda array: np.full_like(array, 7))
    found = errors(cohort)
    assert {one.case_id for one in found} == {FIRST, OTHER}
    with pytest.raises(CohortError, match="2 things are wrong") as caught:
        raise_on_errors(found)
    assert FIRST in str(caught.value)
    assert OTHER in str(caught.value)


def test_progress_counts_the_cases(cohort):
    told = []
    check_cohort(cohort, progress=lambda event, **fields: told.append((event, fields["done"], fields["total"])))
    assert told == [("progress", number, 4) for number in (1, 2, 3, 4)]


def test_a_finding_reads_as_a_sentence():
    assert str(Finding("error", "It is bad.", "a", "mend it.")) == "Case a: It is bad. What to do: mend it."
