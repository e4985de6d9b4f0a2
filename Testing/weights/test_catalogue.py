"""The catalogue that ships: complete, typed, and nothing in it that could name code or an unencrypted source."""

import json
import subprocess
import sys

import pytest
from pydantic import ValidationError

from SSLSegLib.errors import WeightsError
from SSLSegLib.resources import resource
from SSLSegLib.weights.catalogue import CatalogueEntry, entry_named, load_catalogue
from SSLSegLib.weights.configuration import Sam2Configuration


def test_the_catalogue_holds_every_model_the_methods_need():
    assert list(load_catalogue()) == [
        "sslseg-small",
        "MedSAM2_latest",
        "MedSAM2_2411",
        "MedSAM2_US_Heart",
        "MedSAM2_MRI_LiverLesion",
        "MedSAM2_CTLesion",
        "sam2.1_hiera_tiny",
        "sam2.1_hiera_small",
        "sam2.1_hiera_base_plus",
        "sam2.1_hiera_large",
        "dinov2-small",
        "dinov2-base",
        "Qwen3-VL-2B-Instruct",
        "Qwen3-VL-4B-Instruct",
    ]


def test_medsam2_latest_is_the_published_file():
    entry = entry_named("MedSAM2_latest")
    file = entry.files[0]
    assert (file.size, file.sha256) == (156040129, "c92743b99f00d078bf32a3afcc38aaa9faf1c1692dffe3eaa7a90938c1991060")
    assert entry.source.url(file.name).startswith("https://huggingface.co/wanglab/MedSAM2/resolve/")
    assert entry.configuration == Sam2Configuration(base="sam2.1_hiera_t", image_size=512)
    assert "research and education only" in entry.licence_notice


@pytest.mark.parametrize("entry", load_catalogue().values(), ids=lambda entry: entry.name)
def test_every_entry_says_licence_citation_and_purpose(entry):
    assert entry.licence
    assert entry.licence_url.startswith("https://")
    assert entry.citation
    assert entry.purpose
    if entry.kind == "sam2" and entry.source.kind != "bundled":
        assert entry.configuration is not None
    if entry.source.kind != "bundled":
        assert all(entry.source.url(file.name).startswith("https://") for file in entry.files)


def test_a_mirror_of_the_hub_can_be_named(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example.org/")
    entry = entry_named("dinov2-small")
    assert entry.source.url("config.json").startswith("https://mirror.example.org/facebook/dinov2-small/resolve/")


def test_names_are_found_in_any_case_and_near_misses_are_suggested():
    assert entry_named("medsam2_LATEST").name == "MedSAM2_latest"
    with pytest.raises(WeightsError, match="Qwen3-VL-4B-Instruct"):
        entry_named("qwen3-vl-4b")


def _raw_entry(**changes):
    raw = json.loads(resource("Models.json").read_text())["models"][6]
    return raw | changes


@pytest.mark.parametrize(
    "changes",
    [
        {"source": {"kind": "web", "folder": "http://example.org/models"}},
        {"files": [{"name": "../../escape.pt", "size": None, "sha256": None}]},
        {"files": [{"name": "a.pt", "size": None, "sha256": "abc"}]},
        {"files": []},
        {"surprise": 1},
        {"configuration": {"overrides": {"image_encoder": {"_target_": "os.system"}}}},
    ],
    ids=["unencrypted", "path", "short digest", "no files", "unknown key", "code"],
)
def test_a_bad_entry_is_refused(changes):
    with pytest.raises(ValidationError):
        CatalogueEntry.model_validate(_raw_entry(**changes))


@pytest.mark.parametrize(
    "overrides",
    [
        {"_target_": "os.system"},
        {"image_encoder": {"trunk": {"_target_": "subprocess.run"}}},
        {"image_encoder": [{"_args_": []}]},
        {"num_maskmem": "${oc.env:HOME}"},
        {"num_maskmem": object()},
    ],
)
def test_overrides_cannot_name_code(overrides):
    with pytest.raises(ValidationError):
        Sam2Configuration(overrides=overrides)


def test_the_schema_version_is_checked(tmp_path):
    path = tmp_path / "Models.json"
    path.write_text(json.dumps({"schema_version": 2, "models": []}))
    with pytest.raises(WeightsError, match="schema_version"):
        load_catalogue(path)
    with pytest.raises(WeightsError, match="is missing"):
        load_catalogue(tmp_path / "none.json")


def test_catalogue_store_and_download_import_nothing_heavy():
    code = (
        "import sys, SSLSegLib.weights.catalogue, SSLSegLib.weights.store, SSLSegLib.weights.download, "
        "SSLSegLib.weights.commands; "
        "print([name for name in ('torch', 'sam2', 'hydra', 'omegaconf', 'numpy') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
