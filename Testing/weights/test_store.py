"""Where weights are looked for, and what is said when they are not there."""

import pytest

from SSLSegLib.errors import WeightsError
from SSLSegLib.weights.store import default_weights_folder, find_weights, lasting_name, verify_weights, weights_file


def test_the_environment_variable_names_the_folder(weights_folder, monkeypatch):
    assert default_weights_folder() == weights_folder
    monkeypatch.delenv("SSLSEG_WEIGHTS")
    assert default_weights_folder().name == "weights"
    assert "sslseg" in str(default_weights_folder())


def test_missing_weights_name_command_address_folder_and_variable(weights_folder):
    with pytest.raises(WeightsError) as caught:
        find_weights("MedSAM2_latest")
    message = str(caught.value)
    assert str(weights_folder / "MedSAM2_latest.pt") in message
    assert "python -m SSLSegLib weights download MedSAM2_latest" in message
    assert "/wanglab/MedSAM2/resolve/" in message
    assert "SSLSEG_WEIGHTS" in message


def test_a_file_copied_by_hand_is_found_and_checked(weights_folder):
    (weights_folder / "MedSAM2_CTLesion.pt").write_bytes(b"by hand")
    assert find_weights("MedSAM2_CTLesion") == weights_folder / "MedSAM2_CTLesion.pt"
    assert [found.outcome for found in verify_weights("MedSAM2_CTLesion")] == ["unchecked"]


def test_weights_are_named_by_their_file_or_by_their_name_in_the_catalogue(weights_folder, tmp_path):
    own = tmp_path / "own.pt"
    own.write_bytes(b"own")
    assert weights_file(own) == weights_file(str(own)) == own
    known = weights_folder / "MedSAM2_CTLesion.pt"
    known.write_bytes(b"by hand")
    assert weights_file("MedSAM2_CTLesion") == known
    (tmp_path / "MedSAM2_CTLesion.pt").write_bytes(b"another")
    assert weights_file("MedSAM2_CTLesion", tmp_path) == tmp_path / "MedSAM2_CTLesion.pt"
    with pytest.raises(WeightsError, match=r"There is no file .*none\.pt"):
        weights_file(str(tmp_path / "none.pt"))
    with pytest.raises(WeightsError, match="no such file"):  # may be a name mistyped
        weights_file("MedSAM2_lates")


def test_a_name_in_the_catalogue_means_the_same_file_everywhere(weights_folder, tmp_path, monkeypatch):
    known = weights_folder / "MedSAM2_CTLesion.pt"
    known.write_bytes(b"by hand")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "medsam2_ctlesion").write_bytes(b"a file that bears the name")
    assert weights_file("medsam2_ctlesion") == known  # as load_sam2 does
    assert lasting_name("medsam2_ctlesion") == "medsam2_ctlesion"
    (tmp_path / "own.pt").write_bytes(b"own")
    assert weights_file("own.pt").samefile(tmp_path / "own.pt")
    assert lasting_name("own.pt") == str(tmp_path / "own.pt")


def test_an_incomplete_file_is_named_with_both_sizes(weights_folder):
    (weights_folder / "MedSAM2_latest.pt").write_bytes(b"half")
    with pytest.raises(WeightsError, match="has 4 bytes, but MedSAM2_latest has 156040129"):
        find_weights("MedSAM2_latest")
    assert [found.outcome for found in verify_weights("MedSAM2_latest")] == ["wrong"]


def test_a_folder_with_one_file_of_several_is_not_enough(weights_folder):
    (weights_folder / "dinov2-small").mkdir()
    (weights_folder / "dinov2-small" / "config.json").write_bytes(b"{}")
    with pytest.raises(WeightsError, match="not on this machine"):
        find_weights("dinov2-small")
    assert [found.outcome for found in verify_weights("dinov2-small")] == ["missing", "wrong", "missing"]
