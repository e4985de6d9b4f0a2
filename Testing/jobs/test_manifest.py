import json

import pytest

from SSLSegLib.errors import JobError
from SSLSegLib.jobs.manifest import InputFile, Manifest, read_manifest, write_manifest


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "manifest.json"
    write_manifest(path, Manifest(kind="counting", seed=7, parameters={"cases": ["a"]}))
    return path


def change(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_a_manifest_comes_back_as_it_was_written(written):
    manifest = read_manifest(written)
    assert (manifest.kind, manifest.seed, manifest.parameters) == ("counting", 7, {"cases": ["a"]})
    assert manifest.versions["sslseg"]
    assert manifest.checked_parameters().cases == ["a"]


def test_a_newer_manifest_is_refused_with_the_advice_to_update(written):
    change(written, schema_version=2, something_new=1)
    with pytest.raises(JobError, match=r"newer version of SSLSeg.*Update"):
        read_manifest(written)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"schema_version": "1"}', '{"schema_version": true}', "[" * 9999]
)
def test_a_damaged_manifest_is_refused_and_named(written, content):
    written.write_text(content)
    with pytest.raises(JobError, match=r"manifest\.json is damaged"):
        read_manifest(written)


def test_bytes_that_are_not_text_are_refused(written):
    written.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(JobError, match="damaged"):
        read_manifest(written)


def test_a_missing_manifest_is_said_to_be_missing(tmp_path):
    with pytest.raises(JobError, match="no manifest at"):
        read_manifest(tmp_path / "manifest.json")


def test_an_unknown_kind_is_refused_and_never_imported(written):
    change(written, kind="os:system")
    with pytest.raises(JobError, match="not known here"):
        read_manifest(written)


def test_an_unknown_field_or_parameter_is_refused(written):
    change(written, parameters={"cases": ["a"], "code": "print()"})
    with pytest.raises(JobError, match=r"parameter of the counting job is wrong: code"):
        read_manifest(written)


def test_a_changed_or_vanished_input_file_is_noticed(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"one")
    (tmp_path / "b.bin").write_bytes(b"two")
    inputs = {name: InputFile.of(tmp_path / f"{name}.bin") for name in "ab"}
    manifest = Manifest(kind="counting", inputs=inputs)
    assert manifest.changed_inputs() == []
    (tmp_path / "a.bin").write_bytes(b"One")
    (tmp_path / "b.bin").unlink()
    changes = manifest.changed_inputs()
    assert "a.bin has other content" in changes[0]
    assert "b.bin is no longer there" in changes[1]


def test_same_work_looks_at_content_and_not_at_dates_or_paths(tmp_path):
    def manifest(name, seed=1):
        (tmp_path / name).write_bytes(b"same")
        return Manifest(kind="counting", seed=seed, created=name, inputs={"image": InputFile.of(tmp_path / name)})

    assert manifest("one").same_work(manifest("two"))
    assert not manifest("one").same_work(manifest("two", seed=2))
