"""Results are whole or not there, come back as they were, and lie in the geometry of their image."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK
from scipy.ndimage import gaussian_filter

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.errors import CaseError
from SSLSegLib.pseudolabels import storage
from SSLSegLib.pseudolabels.label import (
    HARDLY_LIKELY,
    PseudoLabel,
    build_pseudo_label,
    expected_dice,
    make_provenance,
    score_label,
)
from SSLSegLib.pseudolabels.merging import MAXIMUM_ENTROPY, binary_entropy
from SSLSegLib.pseudolabels.review import load_review, save_review

CLASSES = [
    SegmentClass(value=2, name="liver", color=(200, 50, 40)),
    SegmentClass(value=5, name="kidneys", largest_component=False),
]
OBLIQUE = np.array([[0.6, -0.5, 0.1, 11.3], [0.5, 0.61, 0.2, -42.7], [-0.1, 0.2, 2.9, 7.1], [0, 0, 0, 1]])
GEOMETRIES = {
    "straight": Geometry((5, 14, 11), np.diag([0.7, 0.9, 3.0, 1.0])),
    "flipped": Geometry((5, 14, 11), np.diag([-0.7, -0.9, 3.0, 1.0])),
    "mirrored": Geometry((5, 14, 11), np.diag([0.7, -0.9, 3.0, 1.0])),
    "single slice": Geometry((1, 14, 11), np.diag([0.7, 0.9, 3.0, 1.0])),
}


def oblique(shape=(5, 14, 11)) -> Geometry:
    directions, _ = np.linalg.qr(OBLIQUE[:3, :3])
    matrix = OBLIQUE.copy()
    matrix[:3, :3] = directions * [0.7, 0.9, 3.0]
    return Geometry(shape, matrix)


GEOMETRIES["oblique"] = oblique()


def make_label(geometry: Geometry = GEOMETRIES["straight"], seed: int = 0, **options) -> PseudoLabel:
    noise = np.random.default_rng(seed).normal(size=(2, *geometry.shape))
    probability = 1 / (1 + np.exp(-30 * gaussian_filter(noise, (0, 1, 2, 2))))
    variance = probability * (1 - probability) / 9
    provenance = make_provenance(
        "TFFS-MedSAM2",
        seed=3,
        labelled=["a", "b"],
        options={"insertions": 5},
        weights="tiny",
        weights_sha256="ab" * 32,
    )
    return build_pseudo_label(
        "case_001", probability, geometry, CLASSES, variance=variance, provenance=provenance, **options
    )


@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_pseudo_label_comes_back_as_it_was_saved(tmp_path, name):
    label = make_label(GEOMETRIES[name])
    storage.save_pseudo_label(tmp_path / "case_001", label, CLASSES)
    back = storage.load_pseudo_label(tmp_path / "case_001")
    assert np.array_equal(back.mask, label.mask)
    for saved, loaded in (
        (label.probability, back.probability),
        (label.uncertainty, back.uncertainty),
        (label.spread, back.spread),
    ):
        assert loaded.dtype == np.float32
        assert np.abs(saved - loaded).max() <= 2**-17 + 1e-7
    assert np.array_equal(back.geometry.ijk_to_ras, label.geometry.ijk_to_ras)
    assert (back.scores, back.provenance, back.case_id) == (label.scores, label.provenance, "case_001")


@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_file_lies_where_the_image_lies_as_another_reader_sees_it(tmp_path, name):
    label = make_label(GEOMETRIES[name])
    record = storage.save_pseudo_label(tmp_path, label, CLASSES)
    expected = label.geometry
    k, j, i = (size - 1 for size in expected.shape)
    far_corner = (expected.ijk_to_ras @ [i, j, k, 1])[:3] * [-1, -1, 1]  # files speak LPS
    for file in record.files:
        image = SimpleITK.ReadImage(str(tmp_path / file))
        assert image.GetSize() == expected.shape[::-1]
        assert image.TransformIndexToPhysicalPoint((i, j, k)) == pytest.approx(far_corner.tolist(), abs=1e-3)


def test_the_segmentation_file_is_marked_as_a_pseudo_label_with_its_origin(tmp_path):
    storage.save_pseudo_label(tmp_path, make_label(), CLASSES)
    header = SimpleITK.ReadImage(str(tmp_path / "labels.seg.nrrd"))
    tags = header.GetMetaData("Segment1_Tags")
    assert header.GetMetaData("Segment1_Name") == "kidneys"
    for expected in ("SSLSeg.Kind:pseudo-label", "SSLSeg.Method:TFFS-MedSAM2", "SSLSeg.Seed:3", "SSLSeg.Labelled:a b"):
        assert expected in tags
    assert "ab" * 32 in tags
    assert np.array_equal(
        SimpleITK.GetArrayFromImage(header),
        SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / "labels.nii.gz"))),
    )


def test_the_same_label_gives_the_same_bytes(tmp_path):
    label = make_label()
    first = storage.save_pseudo_label(tmp_path / "one", label, CLASSES)
    assert storage.save_pseudo_label(tmp_path / "two", label, CLASSES).files == first.files


@pytest.mark.parametrize(
    "file", ["labels.nii.gz", "labels.seg.nrrd", "probability_2.nii.gz", "uncertainty.nii.gz", "spread.nii.gz"]
)
def test_a_result_with_a_changed_or_missing_file_is_not_complete_and_not_loaded(tmp_path, file):
    storage.save_pseudo_label(tmp_path, make_label(), CLASSES)
    assert storage.is_complete(tmp_path)
    whole = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert not storage.is_complete(tmp_path)
    assert storage.is_complete(tmp_path, thorough=False)
    with pytest.raises(CaseError, match=rf"case_001.*{file}"):
        storage.load_pseudo_label(tmp_path)
    (tmp_path / file).unlink()
    assert not storage.is_complete(tmp_path, thorough=False)


def test_a_run_killed_while_saving_leaves_no_result(tmp_path, monkeypatch):
    storage.save_pseudo_label(tmp_path, make_label(seed=0), CLASSES)
    written = []

    def dies_at_the_fourth_file(path, array, geometry):
        written.append(path)
        if len(written) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(storage, "write_scalar", dies_at_the_fourth_file)
    with pytest.raises(KeyboardInterrupt):
        storage.save_pseudo_label(tmp_path, make_label(seed=1), CLASSES)
    assert not storage.is_complete(tmp_path, thorough=False)
    with pytest.raises(CaseError, match="no finished result"):
        storage.load_pseudo_label(tmp_path)


def test_saving_again_replaces_the_result_and_leaves_the_review(tmp_path):
    storage.save_pseudo_label(tmp_path, make_label(seed=0), CLASSES)
    save_review(tmp_path, "accepted")
    other = make_label(seed=1)
    storage.save_pseudo_label(tmp_path, other, CLASSES)
    assert np.array_equal(storage.load_pseudo_label(tmp_path).mask, other.mask)
    review = load_review(tmp_path)
    assert review.state == "accepted"
    assert review.is_stale(tmp_path)


def test_result_json_cannot_point_out_of_its_folder(tmp_path):
    storage.save_pseudo_label(tmp_path / "case_001", make_label(), CLASSES)
    path = tmp_path / "case_001" / "result.json"
    content = json.loads(path.read_text())
    content["files"]["../elsewhere"] = "0" * 64
    path.write_text(json.dumps(content))
    assert not storage.is_complete(tmp_path / "case_001")
    with pytest.raises(CaseError, match=r"case_001.*damaged"):
        storage.read_result(tmp_path / "case_001")


def test_the_list_of_results_passes_over_unfinished_ones(tmp_path):
    storage.save_pseudo_label(tmp_path / "case_001", make_label(), CLASSES)
    shutil.copytree(tmp_path / "case_001", tmp_path / "case_002")
    (tmp_path / "case_002" / "result.json").unlink()
    assert list(storage.list_results(tmp_path)) == ["case_001"]


def test_probabilities_that_are_no_numbers_or_of_another_grid_are_refused():
    grid = GEOMETRIES["straight"]
    with pytest.raises(CaseError, match=r"case_9.*between 0 and 1"):
        build_pseudo_label("case_9", np.full((2, *grid.shape), np.nan), grid, CLASSES)
    with pytest.raises(CaseError, match=r"case_9.*between 0 and 1"):
        build_pseudo_label("case_9", np.full((2, *grid.shape), 1.01), grid, CLASSES)
    with pytest.raises(CaseError, match=r"case_9.*shape"):
        build_pseudo_label("case_9", np.zeros((1, *grid.shape)), grid, CLASSES)


def test_a_mean_that_rounding_put_above_one_is_one():
    grid = GEOMETRIES["straight"]
    label = build_pseudo_label("c", np.full((2, *grid.shape), 1.0 + 2e-7), grid, CLASSES)
    assert label.probability.max() == 1.0
    assert label.uncertainty.max() == 0.0


def test_small_pieces_go_only_where_the_class_is_one_piece():
    grid = Geometry((1, 9, 9), np.eye(4))
    probability = np.zeros((2, 1, 9, 9), np.float32)
    probability[0, 0, :3, :3] = probability[0, 0, 8, 8] = 0.9
    probability[1, 0, 5:8, :3] = probability[1, 0, 6, 6] = 0.8
    label = build_pseudo_label("c", probability, grid, CLASSES)
    assert ((label.mask == 2).sum(), (label.mask == 5).sum()) == (9, 10)
    every = build_pseudo_label("c", probability, grid, CLASSES, largest_component=False)
    assert (every.mask == 2).sum() == 10
    assert label.spread is None
    assert label.scores.volume_ml == pytest.approx({"liver": 0.009, "kidneys": 0.010})


def test_uncertainty_is_that_of_the_least_sure_class():
    label = make_label()
    assert np.array_equal(label.uncertainty, binary_entropy(label.probability).max(axis=0))
    assert 0 <= label.uncertainty.min() <= label.uncertainty.max() <= MAXIMUM_ENTROPY + 1e-6
    assert label.spread.max() <= 0.5


def test_scores_look_near_the_foreground_and_find_the_worst_slice():
    grid = Geometry((7, 40, 40), np.diag([1.0, 1.0, 2.0, 1.0]))
    mask = np.zeros(grid.shape, np.uint8)
    mask[3, 20, 20] = 2
    uncertainty = np.zeros(grid.shape, np.float32)
    uncertainty[5, 20, 20] = MAXIMUM_ENTROPY  # 4 mm away: counts
    uncertainty[6, 0:20, 0] = MAXIMUM_ENTROPY  # far away: only the slice's sum sees it
    k, j, i = np.indices(grid.shape)
    near = (2.0 * (k - 3)) ** 2 + (j - 20) ** 2 + (i - 20) ** 2 <= 25
    probability = np.stack([mask == 2, mask == 5]).astype(np.float32)
    scores = score_label(mask, probability, uncertainty, grid, CLASSES)
    assert scores.mean_entropy == pytest.approx(MAXIMUM_ENTROPY / near.sum(), rel=1e-5)
    assert scores.uncertain_fraction == pytest.approx(1 / near.sum())
    assert scores.most_uncertain_slice == 6
    assert not scores.empty
    nothing = score_label(np.zeros_like(mask), probability, uncertainty, grid, CLASSES)
    assert nothing.empty
    assert nothing.expected_dice == {"liver": 0.0}  # sure to be there and not found; nobody looked for kidneys
    assert nothing.mean_expected_dice is None
    assert nothing.mean_entropy == pytest.approx(float(uncertainty.mean()))


def test_the_expected_dice_is_that_of_truths_drawn_from_the_probabilities():
    """Against the definition: the mean Dice with many truths that are as likely as the probabilities say."""
    label = make_label(seed=3)
    rng = np.random.default_rng(0)
    for segment, probability in zip(CLASSES, label.probability, strict=True):
        mask, drawn = label.mask == segment.value, []
        for _ in range(400):
            truth = rng.random(probability.shape) < np.where(probability > HARDLY_LIKELY, probability, 0)
            drawn.append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
        assert label.scores.expected_dice[segment.name] == pytest.approx(np.mean(drawn), abs=0.005)
        assert 0.5 < np.mean(drawn) < 0.99
    assert label.scores.mean_expected_dice == pytest.approx(np.mean(list(label.scores.expected_dice.values())))


def test_a_class_that_is_not_found_counts_by_how_likely_it_is_somewhere():
    grid = GEOMETRIES["straight"]
    probability = np.zeros((2, *grid.shape))
    probability[0, :2] = 0.9
    liver = {"liver": 2 * 0.9 / (0.9 + 1)}
    assert build_pseudo_label("c", probability, grid, CLASSES).scores.expected_dice == pytest.approx(liver)
    probability[1, 4, 3, 3] = 0.4
    found = build_pseudo_label("c", probability, grid, CLASSES).scores
    assert found.expected_dice == pytest.approx(liver | {"kidneys": 0.6})
    assert found.mean_expected_dice == pytest.approx((liver["liver"] + 0.6) / 2)


def test_the_expected_dice_of_what_is_sure_is_one_and_what_was_taken_away_counts():
    probability = np.zeros((3, 4, 5), np.float32)
    assert expected_dice(probability > 0.5, probability) == 1.0
    probability[0, :2] = 1.0
    assert expected_dice(probability > 0.5, probability) == 1.0
    probability[1:] = HARDLY_LIKELY  # fog that adds up to 2 voxels
    assert expected_dice(probability > 0.5, probability) == 1.0
    mask = probability > 0.5
    mask[0, 1] = False  # another class or the largest component took it
    assert expected_dice(mask, probability) == pytest.approx(2 * 5 / (10 + 5))


def test_scores_of_earlier_versions_lack_what_is_expected_and_are_read(tmp_path):
    label = make_label()
    storage.save_pseudo_label(tmp_path / "case_001", label, CLASSES)
    path = tmp_path / "case_001" / "result.json"
    record = json.loads(path.read_text())
    assert set(record["scores"].pop("expected_dice")) == {"liver", "kidneys"}
    path.write_text(json.dumps(record))
    assert storage.read_result(tmp_path / "case_001").scores.mean_expected_dice is None
