"""Cohort files: what is accepted, what is refused and how it is said."""

import json

import pytest

from SSLSegLib.cases.classes import Code, SegmentClass, Terminology
from SSLSegLib.cases.cohort import Case, Cohort, is_safe_id
from SSLSegLib.errors import CohortError


def content(**changes):
    whole = {
        "schema_version": 1,
        "name": "livers",
        "modality": "MR",
        "classes": [{"value": 1, "name": "liver", "color": [221, 130, 101]}],
        "cases": [
            {"id": "a", "role": "labelled", "images": ["images/a.nii.gz"], "label": "labels/a.nii.gz"},
            {"id": "b", "role": "unlabelled", "images": ["images/b.nii.gz"], "reference": "labels/b.nii.gz"},
            {"id": "c", "role": "test", "images": ["images/c.nii.gz"]},
        ],
    }
    return whole | changes


def case(**changes):
    return {"id": "x", "role": "unlabelled", "images": ["x.nii.gz"]} | changes


def test_a_cohort_is_read_back_as_written(tmp_path):
    cohort = Cohort.from_dict(content(), tmp_path)
    cohort.save(tmp_path / "cohort.json")
    assert Cohort.load(tmp_path / "cohort.json") == cohort
    assert Cohort.load(tmp_path) == cohort
    assert json.loads((tmp_path / "cohort.json").read_text())["schema_version"] == 1


def test_cases_are_found_by_role_and_id(tmp_path):
    cohort = Cohort.from_dict(content(), tmp_path)
    assert [[one.id for one in group] for group in (cohort.labelled, cohort.unlabelled, cohort.test)] == [
        ["a"],
        ["b"],
        ["c"],
    ]
    assert cohort.image_paths(cohort.case("b")) == [tmp_path / "images/b.nii.gz"]
    assert cohort.label_path(cohort.case("a")) == tmp_path / "labels/a.nii.gz"
    assert cohort.label_path(cohort.case("b")) is None
    assert cohort.label_path(cohort.case("b"), "reference") == tmp_path / "labels/b.nii.gz"
    with pytest.raises(CohortError, match="no case 'z'"):
        cohort.case("z")


def test_a_cohort_saved_elsewhere_names_the_same_files(tmp_path):
    cohort = Cohort.from_dict(content(), tmp_path / "data")
    inside = cohort.save(tmp_path / "cohort.json")
    assert inside.case("a").images == ("data/images/a.nii.gz",)
    outside = cohort.save(tmp_path / "other" / "cohort.json")
    assert outside.case("a").images == (str(tmp_path / "data/images/a.nii.gz"),)
    for moved in (inside, outside):
        assert moved.image_paths(moved.case("a")) == cohort.image_paths(cohort.case("a"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema_version": 2}, "version 2.*update SSLSeg"),
        ({"schema_version": None}, "schema_version"),
        ({"surprise": 1}, "surprise"),
        ({"classes": []}, "classes"),
        ({"classes": [{"value": 1, "name": "a"}, {"value": 2, "name": "A"}]}, "class name 'A' appears twice"),
        ({"classes": [{"value": 1, "name": "a"}, {"value": 1, "name": "b"}]}, "class value '1' appears twice"),
        ({"classes": [{"value": 256, "name": "a"}]}, "255"),
        ({"classes": [{"value": 0, "name": "a"}]}, "classes.0.value"),
        ({"modality": "CT"}, "CT cohort needs a window"),
        ({"modality": "mr"}, "modality: .*capital letters"),
        ({"modality": "CT", "window": {"level": 40, "width": 0}}, "window.width"),
        ({"cases": [case(id="q"), case(id="Q")]}, "case id 'Q' appears twice"),
        ({"cases": [case(id="../up")]}, "cannot name a case"),
        ({"cases": [case(images=["../x.nii.gz"])]}, "leaves the cohort's folder"),
        ({"cases": [case(images=["a/..\\..\\x.nii.gz"])]}, "leaves the cohort's folder"),
        ({"cases": [case(images=[])]}, "images"),
        ({"cases": [case(role="labelled")]}, "case 'x' is labelled but names no label"),
        ({"cases": [case(label="x.nii.gz")]}, "'reference'"),
        ({"cases": [case(extra=1)]}, "case 'x'.*no such field"),
        ({"cases": [case(imags=["x.nii.gz"])]}, "case 'x'.*no such field; is 'images' meant"),
        ({"modalty": "MR"}, "modalty: there is no such field; is 'modality' meant"),
        ({"classes": [{"value": 1}]}, "classes.0.name: it is missing"),
        ({"cases": [case(images="x.nii.gz")]}, "images.*a list is expected"),
    ],
)
def test_a_wrong_cohort_is_refused_saying_what_is_wrong(changes, said, tmp_path):
    with pytest.raises(CohortError, match=said):
        Cohort.from_dict(content(**changes), tmp_path)


def test_a_cohort_that_an_editor_has_marked_as_utf_8_is_read(tmp_path):
    (tmp_path / "cohort.json").write_text(json.dumps(content()), encoding="utf-8-sig")
    assert Cohort.load(tmp_path) == Cohort.from_dict(content(), tmp_path)


def test_a_wrong_cohort_file_is_named(tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps(content(surprise=1)))
    with pytest.raises(CohortError, match=r"mine\.json is not valid"):
        Cohort.load(tmp_path / "mine.json")


@pytest.mark.parametrize("text", ["", "[1]", "{", "\x00"])
def test_files_that_are_no_cohort_are_refused(text, tmp_path):
    (tmp_path / "cohort.json").write_text(text)
    with pytest.raises(CohortError):
        Cohort.load(tmp_path / "cohort.json")


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(CohortError, match="no cohort file"):
        Cohort.load(tmp_path / "cohort.json")


def test_absolute_paths_are_allowed(tmp_path):
    path = str(tmp_path / "far" / "x.nii.gz")
    cohort = Cohort.from_dict(content(cases=[case(images=[path])]), tmp_path / "near")
    assert [str(one) for one in cohort.image_paths(cohort.case("x"))] == [path]


@pytest.mark.parametrize("name", ["", ".a", "a.", "con", "NUL.x", "a b", "a/b", "ä", "x" * 65, "-a", "a\n"])
def test_ids_that_are_no_file_names_are_refused(name):
    assert not is_safe_id(name)


@pytest.mark.parametrize("name", ["a", "la_000", "A.b-c_1", "x" * 64, "console"])
def test_ids_that_are_file_names_are_accepted(name):
    assert is_safe_id(name)


def test_a_cohort_without_labelled_or_unlabelled_cases_is_refused_where_they_are_needed(tmp_path):
    cohort = Cohort.from_dict(content(cases=[case()]), tmp_path)
    with pytest.raises(CohortError, match="no labelled case"):
        cohort.require()
    cohort.require(labelled=0)
    with pytest.raises(CohortError, match="no unlabelled case"):
        Cohort.from_dict(content(cases=[case(role="labelled", label="y.nii")]), tmp_path).require()


def test_labels_that_the_method_must_not_see_become_references(tmp_path):
    cases = [case(id=name, role="labelled", label=f"labels/{name}.nii.gz") for name in "abc"]
    cohort = Cohort.from_dict(content(cases=[*cases, case(id="d")]), tmp_path)
    changed = cohort.with_roles(labelled=["b"], test=["c"])
    assert [(one.id, one.role, one.label, one.reference) for one in changed.cases] == [
        ("a", "unlabelled", None, "labels/a.nii.gz"),
        ("b", "labelled", "labels/b.nii.gz", None),
        ("c", "test", None, "labels/c.nii.gz"),
        ("d", "unlabelled", None, None),
    ]
    assert Cohort.from_dict(changed.to_dict(), tmp_path) == changed
    assert changed.folder == tmp_path
    assert changed.with_roles(labelled=["a", "b", "c"]) == cohort
    for wrong in ({"labelled": ["z"]}, {"labelled": ["d"]}, {"labelled": ["a"], "test": ["a"]}):
        with pytest.raises(CohortError):
            cohort.with_roles(**wrong)


def test_classes_get_a_colour_and_say_their_terminology_as_slicer_does():
    plain = SegmentClass(value=2, name="spleen")
    assert plain.color == (128, 174, 128)
    assert plain.color_unit == pytest.approx((128 / 255, 174 / 255, 128 / 255))
    assert SegmentClass.model_validate(plain.model_dump()) == plain
    liver = Terminology(type=Code(scheme="SCT", value="10200004", meaning="Liver"))
    assert liver.serialized() == (
        "Segmentation category and type - 3D Slicer General Anatomy list"
        "~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^~Anatomic codes - DICOM master list~^^~^^"
    )
    with pytest.raises(ValueError, match="separate codes"):
        Code(scheme="SCT", value="1~2", meaning="x")


def test_paths_may_be_given_as_path_objects(tmp_path):
    made = Case(id="p", role="labelled", images=[tmp_path / "i.nii"], label=tmp_path / "l.nii")
    assert made.label == (tmp_path / "l.nii").as_posix()
