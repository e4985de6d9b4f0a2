import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny import make_cohort

from SSLSegLib.errors import CohortError, WeightsError
from SSLSegLib.unimatch.configuration import NETWORKS, NetworkConfiguration
from SSLSegLib.unimatch.network import SegmentationNetwork
from SSLSegLib.vessa.bank_files import read_record, remove_templates
from SSLSegLib.vessa.candidates import sampling_probabilities
from SSLSegLib.vessa.features import DinoFeatures, dino_features
from SSLSegLib.vessa.slices import CohortSlices, LabelledSlice, StoredSlices
from SSLSegLib.vessa.templates import TemplateBank, chosen_slices

NETWORK = NetworkConfiguration(
    hidden=24, layers=4, heads=2, taps=(0, 1, 2, 3), features=8, channels=(6, 8, 10, 12), patch=8, grid=4
)


class Given:
    """Features that are given: the first pixel's red says which."""

    name = "given"

    def __init__(self, vectors):
        self.vectors = np.asarray(vectors, np.float32)

    def __call__(self, pictures):
        return self.vectors[[int(each[0, 0, 0]) for each in pictures]]


def slices(targets, subjects=None):
    """Slices that hold the given targets; the i-th picture is i everywhere."""
    count = len(targets)
    entries = [
        LabelledSlice(f"s{i}", "d", (subjects or ["x"] * count)[i], "MR", i / max(count - 1, 1), tuple(targets[i]))
        for i in range(count)
    ]
    pictures = [np.full((6, 5, 3), i, np.uint8) for i in range(count)]
    masks = [{name: np.arange(30).reshape(6, 5) % (2 + n) == 0 for n, name in enumerate(held)} for held in targets]
    return StoredSlices(entries, pictures, masks)


def unit(*degrees):
    return [[math.cos(math.radians(each)), math.sin(math.radians(each))] for each in degrees]


def bank(targets, vectors, subjects=None):
    return TemplateBank.of(slices(targets, subjects), Given(vectors))


def test_equation_1_by_hand():
    similarities = [0.9, 0.7, 0.4]
    plain = [math.exp(s / 0.1) for s in similarities]
    expected = [each / sum(plain) for each in plain]
    np.testing.assert_allclose(sampling_probabilities(np.array(similarities), 0.1), expected, rtol=1e-12)


def test_equation_1_survives_a_tiny_temperature():
    np.testing.assert_allclose(sampling_probabilities(np.array([0.9, 0.89]), 1e-6), [1, 0], atol=1e-12)


def test_the_three_most_alike_that_hold_the_class_are_found_in_order():
    found = bank([["a"], ["a"], ["b"], ["a"], ["a"]], unit(40, 10, 0, 90, 20)).candidates(np.array([1.0, 0.0]), "a")
    assert found.indices == (1, 4, 0)
    np.testing.assert_allclose(found.similarities, np.cos(np.radians([10, 20, 40])), atol=1e-6)


def test_fewer_candidates_where_fewer_hold_the_class_and_none_where_none_does():
    made = bank([["a"], ["b"]], unit(0, 10))
    assert made.candidates(np.array([1.0, 0.0]), "b").indices == (1,)
    assert made.candidates(np.array([1.0, 0.0]), "c").indices == ()
    assert made.holds("b")
    assert not made.holds("c")


def test_a_subject_can_be_left_out():
    made = bank([["a"], ["a"]], unit(0, 50), subjects=["one", "other"])
    assert made.candidates(np.array([1.0, 0.0]), "a", not_subject="one").indices == (1,)


def test_the_position_prior_prefers_templates_of_the_same_level():
    made = bank([["a"], ["a"], ["a"]], unit(0, 1, 2))  # positions 0, 0.5, 1
    assert made.candidates(np.array([1.0, 0.0]), "a", top=1, position=1.0).indices == (0,)
    assert made.candidates(np.array([1.0, 0.0]), "a", top=1, position=1.0, position_weight=0.1).indices == (2,)


def test_templates_are_sampled_as_often_as_equation_1_says():
    found = bank([["a"], ["a"], ["a"]], unit(0, 20, 30)).candidates(np.array([1.0, 0.0]), "a")
    rng = np.random.default_rng(0)
    drawn = np.bincount([found.sample(rng, 0.1) for _ in range(4000)], minlength=3) / 4000
    np.testing.assert_allclose(drawn, found.probabilities(0.1), atol=0.03)


def test_a_bank_comes_back_from_its_folder_as_it_was(tmp_path):
    made = bank([["a", "b"], ["b"]], unit(0, 10))
    made.save(tmp_path)
    back = TemplateBank.load(tmp_path)
    assert back.templates == made.templates
    assert back.features_name == "given"
    np.testing.assert_array_equal(back.features, made.features)
    for ours, theirs in zip(back.masks, made.masks, strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])
    np.testing.assert_array_equal(back.pictures[1], made.pictures[1])
    assert back.fingerprint() == made.fingerprint()


def test_the_fingerprint_sees_one_changed_pixel_of_a_mask():
    made, other = bank([["a"]], unit(0)), bank([["a"]], unit(0))
    assert made.fingerprint() == other.fingerprint()
    other.masks[0]["a"][3, 3] ^= True
    assert made.fingerprint() != other.fingerprint()


def test_a_bank_grows_and_a_template_of_the_same_id_is_replaced():
    made, more = bank([["a"], ["b"]], unit(0, 10)), bank([["b"]], unit(70))
    grown = made.grown(more)
    assert [each.id for each in grown.templates] == ["s1", "s0"]
    assert grown.templates[1].targets == ("b",)
    np.testing.assert_allclose(grown.features, unit(10, 70), atol=1e-6)


def test_banks_of_other_features_do_not_mix():
    other = bank([["a"]], unit(0))
    other.features_name = "other"
    with pytest.raises(CohortError, match="indexed by 'given'"):
        bank([["a"]], unit(0)).grown(other)


@pytest.mark.parametrize("missing", ["features.npy", "images/s0.png", "masks/s0.0.png", "bank.json"])
def test_a_bank_that_is_not_whole_is_refused_by_name(tmp_path, missing):
    bank([["a"]], unit(0)).save(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(CohortError, match=missing.split("/")[-1]):
        TemplateBank.load(tmp_path)


def test_a_bank_goes_into_a_new_or_empty_folder_or_its_own_and_never_among_other_files(tmp_path):
    made = bank([["a"]], unit(0))
    (tmp_path / "scans" / "images").mkdir(parents=True)
    (tmp_path / "scans" / "images" / "s0.png").write_bytes(b"mine")
    with pytest.raises(CohortError, match="holds no template bank"):
        made.save(tmp_path / "scans")
    with pytest.raises(CohortError, match="holds no template bank"):
        made.save(tmp_path / "scans" / "images" / "s0.png")
    files = [path for path in (tmp_path / "scans").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in files] == [b"mine"]
    (tmp_path / "bank" / ".part-bank").mkdir(parents=True)  # as an interrupted run leaves it
    made.save(tmp_path / "bank")
    made.save(tmp_path / "bank")
    assert sorted(path.name for path in (tmp_path / "bank").iterdir()) == [
        "bank.json",
        "features-2.npy",  # that of the first is gone with it
        "images",
        "masks",
    ]


def test_a_template_cannot_name_a_file_elsewhere(tmp_path):
    bank([["a"]], unit(0)).save(tmp_path)
    record = json.loads((tmp_path / "bank.json").read_text())
    record["templates"][0]["id"] = "../../secret"
    (tmp_path / "bank.json").write_text(json.dumps(record))
    with pytest.raises(CohortError, match="no file name"):
        TemplateBank.load(tmp_path)


def test_without_any_labelled_slice_there_is_no_bank():
    with pytest.raises(CohortError, match="there are none"):
        bank([[]], unit(0))


def test_a_small_bank_covers_the_extent_of_every_class():
    held = [["a"] if 2 <= i < 12 else [] for i in range(20)]
    held[3] = ["a", "b"]
    made = slices(held)
    assert chosen_slices(made) == list(range(2, 12))
    assert chosen_slices(made, 1) == [3, 7]
    assert chosen_slices(made, 2) == [3, 4, 9]


def test_a_cohort_gives_its_labelled_slices_and_reads_no_reference(tmp_path):
    cohort = make_cohort(tmp_path)
    for path in (tmp_path / "references").iterdir():
        path.write_bytes(b"not to be read")
    read = CohortSlices(cohort)
    assert {entry.subject for entry in read.entries} == {"c0", "c1"}
    assert len(read.entries) == 11
    rod = [index for index, entry in enumerate(read.entries) if "rod" in entry.targets]
    assert [read.entries[index].id for index in rod] == ["c0.0002", "c1.0002"]
    assert read.mask(rod[0], "rod").sum() > 0
    assert not read.mask(0, "rod").any()
    assert read.picture(0).shape == (40, 36, 3)


def test_dinov2_compares_class_tokens_of_length_one_like_transformers_own_model(tmp_path):
    torch.manual_seed(0)
    network = SegmentationNetwork(NETWORK, 2)
    features = DinoFeatures(network, "tiny", side=32)  # the native size, where both place tokens alike
    pictures = [np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8) for i in range(3)]
    images = torch.from_numpy(np.stack(pictures)).float() / 255
    images = (images - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        tokens = network.encoder.eval()(images.permute(0, 3, 1, 2)).last_hidden_state[:, 0]
    expected = tokens / tokens.norm(dim=1, keepdim=True)
    np.testing.assert_allclose(features(pictures), expected.numpy(), atol=1e-5)


def test_dinov2_is_read_from_a_file_of_any_size(tmp_path, monkeypatch):
    other = NETWORK.model_copy(update={"hidden": 32})
    for size, configuration in (("small", NETWORK), ("base", other), ("large", NETWORK)):
        monkeypatch.setitem(NETWORKS, size, configuration)
    torch.manual_seed(0)
    network = SegmentationNetwork(other, 2)
    save_file(network.encoder.state_dict(), tmp_path / "dino.safetensors")
    features = dino_features(tmp_path / "dino.safetensors", side=32)
    picture = [np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)]
    np.testing.assert_allclose(features(picture), DinoFeatures(network, "x", side=32)(picture), atol=1e-6)
    assert features.name.startswith("dinov2-base:")


def test_a_file_that_is_no_dinov2_is_refused(tmp_path, monkeypatch):
    for size in ("small", "base", "large"):
        monkeypatch.setitem(NETWORKS, size, NETWORK)
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="neither"):
        dino_features(tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="no file"):
        dino_features(tmp_path / "missing.safetensors")


def test_templates_taken_out_leave_with_their_files_and_the_others_stay_as_they_were(tmp_path):
    made = bank([("a",), ("a", "b"), ("b",)], unit(0, 40, 90))
    made.save(tmp_path / "bank")
    gone, kept = made.templates[1].id, [made.templates[0].id, made.templates[2].id]
    assert remove_templates(tmp_path / "bank", [gone, "never there"]) == 2
    left = TemplateBank.load(tmp_path / "bank")
    assert left.fingerprint() == made.part([0, 2]).fingerprint()
    assert [each.id for each in read_record(tmp_path / "bank").templates] == kept
    names = [path.name for path in (tmp_path / "bank").rglob("*.png")]
    assert len(names) == 4
    assert not [name for name in names if name.startswith(f"{gone}.")]


def test_a_bank_is_never_emptied(tmp_path):
    made = bank([("a",), ("b",)], unit(0, 90))
    made.save(tmp_path / "bank")
    with pytest.raises(CohortError, match="No template would be left"):
        remove_templates(tmp_path / "bank", [each.id for each in made.templates])
    assert len(TemplateBank.load(tmp_path / "bank")) == 2
