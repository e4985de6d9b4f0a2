"""Names, links, pipes, devices and archives that lie: the hostile inputs that are not in a file's contents."""

import contextlib
import gzip
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

if sys.platform == "win32":
    pytest.skip("pipes and links as POSIX has them", allow_module_level=True)

import hostile_documents
import SimpleITK
from hostile_guard import Format, try_input
from hostile_weights import zip_bomb

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.cases.headers import read_header
from SSLSegLib.cases.preflight import check_cohort
from SSLSegLib.cases.reading import read_image
from SSLSegLib.cases.textheader import refuse_strange_text_header
from SSLSegLib.errors import CaseError, JobError, SSLSegError, WeightsError
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.manifest import InputFile, Manifest, write_manifest
from SSLSegLib.jobs.process import start_job
from SSLSegLib.jobs.runner import run_job
from SSLSegLib.pseudolabels.review import load_review
from SSLSegLib.weights.catalogue import load_catalogue
from SSLSegLib.weights.reading import read_state_dict


def guarded(read):
    """Run under the limits of the fuzz suite."""
    return try_input(Format("by hand", None, lambda folder, _: read(folder)), b"")


def nrrd(*lines: bytes) -> bytes:
    """A float volume of 5 x 4 x 3 with these lines in its header."""
    head = (b"NRRD0004", b"type: float", b"dimension: 3", b"sizes: 5 4 3", b"encoding: raw", b"endian: little")
    return b"\n".join((*head, *lines, b"", bytes(240)))


READERS = {
    "cohort.json": lambda path: Cohort.load(path),
    "manifest.json": lambda path: Job.open(path.parent),
    "Models.json": lambda path: load_catalogue(path),
    "review.json": lambda path: load_review(path.parent),
    "image.nii.gz": lambda path: read_image(path),
    "image.nrrd": lambda path: read_image(path),
    "image.mhd": lambda path: read_image(path),
    "weights.pt": lambda path: read_state_dict(path),
    "weights.safetensors": lambda path: read_state_dict(path),
}


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_that_nobody_writes_to_is_refused_and_not_waited_for(name):
    def read(folder):
        os.mkfifo(folder / name)
        READERS[name](folder / name)

    assert not guarded(read)


@pytest.mark.parametrize("name", READERS)
def test_a_link_to_a_device_without_end_is_refused(name):
    def read(folder):
        (folder / name).symlink_to("/dev/zero")
        READERS[name](folder / name)

    assert not guarded(read)


@pytest.mark.parametrize("name", ["x" * 300 + ".nii.gz", "d/" * 3000 + "x.nrrd", "a\0b.nii", "\udcff.nii.gz"])
def test_paths_that_no_disk_can_hold_are_refused(name):
    def read(folder):
        read_image(folder / name)

    assert not guarded(read)


def test_long_and_foreign_names_that_a_disk_can_hold_are_read(tmp_path):
    folder = tmp_path / "Krankenhaus Zürich – 放射線科" / ("tief" * 30) / "🧠"
    folder.mkdir(parents=True)
    image = SimpleITK.GetImageFromArray(np.ones((2, 3, 4), np.float32))
    for name in ("Ä b.nii.gz", "Ä b.nrrd", "Ä b.mha"):
        SimpleITK.WriteImage(image, str(folder / name))
        assert read_image(folder / name).array.shape == (1, 2, 3, 4)


def test_a_name_in_a_header_that_is_no_text_is_left_out_and_the_image_read(tmp_path):
    SimpleITK.WriteImage(SimpleITK.Image(4, 3, 2, SimpleITK.sitkUInt8), str(tmp_path / "x.nrrd"), useCompression=False)
    content = (tmp_path / "x.nrrd").read_bytes()
    (tmp_path / "x.nrrd").write_bytes(content.replace(b"type:", b"\xa5\x9a_Layer:=-1\nR\xe9gion:=foie\ntype:", 1))
    header = read_header(tmp_path / "x.nrrd")
    assert header.size == (4, 3, 2)
    assert all(name.isascii() for name in header.metadata)
    assert read_image(tmp_path / "x.nrrd").array.shape == (1, 2, 3, 4)


def test_a_link_to_itself_in_a_cohort_is_a_finding_and_not_an_endless_walk(tmp_path):
    (tmp_path / "loop.nii.gz").symlink_to("loop.nii.gz")
    cohort = Cohort.from_dict(
        {**hostile_documents.COHORT, "cases": [{"id": "a", "role": "unlabelled", "images": ["loop.nii.gz"]}]}, tmp_path
    )
    assert any(finding.severity == "error" for finding in check_cohort(cohort))


@pytest.mark.parametrize("identifier", ["../x", "/x", "a/b", "..", "con", "a\\b", "x" * 65, "", ".hidden", "a\n"])
def test_an_id_that_is_no_plain_name_is_no_id(identifier):
    content = {**hostile_documents.COHORT}
    content["cases"] = [{"id": identifier, "role": "unlabelled", "images": ["a.nii"]}]
    with pytest.raises(SSLSegError, match="cannot name a case"):
        Cohort.from_dict(content, ".")


@pytest.mark.parametrize("header", ["x.nhdr", "x.mhd"])
@pytest.mark.parametrize("elsewhere", ["../secret.raw", "/etc/passwd", "/dev/zero"])
def test_a_header_cannot_have_voxels_read_from_outside_its_folder(tmp_path, header, elsewhere):
    inner = tmp_path / "in"
    inner.mkdir()
    (tmp_path / "secret.raw").write_bytes(bytes(100))
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array), str(inner / header))
    assert read_image(inner / header).array.max() == 23  # beside it is where it belongs
    text = (inner / header).read_text()
    beside = next(path.name for path in inner.iterdir() if path.name != header)
    (inner / header).write_text(text.replace(beside, elsewhere))
    with pytest.raises(CaseError, match="no file in its folder"):
        read_image(inner / header)


def test_a_stream_packed_a_thousandfold_is_not_unpacked(tmp_path):
    """300 MB of zeros behind a small volume, and a header that announces a terabyte in a small file."""
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.ones((2, 3, 4), np.float32)), str(tmp_path / "x.nii"))
    small = (tmp_path / "x.nii").read_bytes()
    with gzip.open(tmp_path / "x.nii.gz", "wb", 1) as stream:
        stream.write(small)
        for _ in range(30):
            stream.write(bytes(10**7))
    began = time.process_time()
    with contextlib.suppress(CaseError):
        assert read_image(tmp_path / "x.nii.gz").array.shape == (1, 2, 3, 4)
    assert time.process_time() - began < 0.5
    huge = bytearray(small)
    huge[40:56] = np.array([3, 32000, 32000, 1000, 1, 1, 1, 1], "<i2").tobytes()
    (tmp_path / "y.nii.gz").write_bytes(gzip.compress(bytes(huge)))
    with pytest.raises(CaseError, match="truncated"):
        read_image(tmp_path / "y.nii.gz")


def test_a_checkpoint_that_unpacks_to_more_than_itself_is_refused(tmp_path):
    (tmp_path / "x.pt").write_bytes(zip_bomb(300))
    assert (tmp_path / "x.pt").stat().st_size < 5e6
    with pytest.raises(WeightsError, match="would unpack"):
        read_state_dict(tmp_path / "x.pt")


def make_job(folder: Path) -> Job:
    folder.mkdir()
    write_manifest(folder / "manifest.json", Manifest.model_validate(hostile_documents.MANIFEST))
    return Job.open(folder)


@pytest.mark.parametrize(
    "name",
    [
        *("events.jsonl", "logs", "results", "report", "state.json", ".lock.json.guard", "logs/job.log", "scratch"),
        *("selftraining/rounds", "predictions/round_1", "unimatch/training"),
    ],
)
def test_a_link_in_a_job_folder_never_leads_our_writing_elsewhere(tmp_path, name):
    job = make_job(tmp_path / "job")
    victim = tmp_path / "victim"
    if "." in name:
        victim.write_text("precious")
    else:
        victim.mkdir()
        (victim / "precious").write_text("precious")
    (job.folder / name).parent.mkdir(exist_ok=True)
    (job.folder / name).symlink_to(victim)
    for act in (run_job, lambda job: start_job(job.folder)):
        with pytest.raises(JobError, match="is a link to another place"):
            act(job)
    assert (victim if "." in name else victim / "precious").read_text() == "precious"
    assert victim.is_file() or len(list(victim.iterdir())) == 1


@pytest.mark.parametrize("name", ["../../secret", "/dev/zero", "pipe"])
def test_checksums_cannot_name_what_is_not_in_the_result(tmp_path, name):
    job = make_job(tmp_path / "job")
    result = job.result_folder("a")
    result.mkdir(parents=True)
    (tmp_path / "job" / "secret").write_bytes(b"")
    os.mkfifo(result / "pipe")
    nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    (result / "checksums.json").write_text(json.dumps({"schema_version": 1, "sha256": {name: nothing}}))
    assert not job.has_result("a")


def test_an_input_that_has_become_a_pipe_is_a_change_and_not_a_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    said = InputFile(path=str(tmp_path / "pipe"), size=1, sha256="0" * 64).difference()
    assert "can no longer be read" in said


@pytest.mark.parametrize(
    "overrides",
    [
        {"memory_attention": {"num_layers": 8000}},
        {"memory_attention": {"d_model": 8192}, "image_encoder": {"neck": {"d_model": 8192}}},
        {"image_encoder": {"trunk": {"embed_dim": 8192, "stages": [64, 64, 64, 64]}}},
        {"image_encoder": 3},
        {"memory_attention": {"num_layers": "x"}},
        {"image_encoder": {"trunk": {"embed_dim": 10**9}}},
    ],
)
def test_what_lies_beside_weights_cannot_have_a_giant_model_built(tmp_path, overrides):
    import torch
    from safetensors.torch import save_file

    from SSLSegLib.files import sha256_of
    from SSLSegLib.weights.loading import load_sam2

    save_file({"image_encoder.trunk.patch_embed.proj.weight": torch.zeros(4, 3, 7, 7)}, tmp_path / "x.safetensors")
    configuration = {"base": "sam2.1_hiera_t", "image_size": 64, "overrides": overrides}
    sidecar = {
        **hostile_documents.SIDECAR,
        "size": (tmp_path / "x.safetensors").stat().st_size,
        "sha256": sha256_of(tmp_path / "x.safetensors"),
        "configuration": configuration,
    }

    def read(folder):
        (tmp_path / "x.json").write_text(json.dumps(sidecar))
        load_sam2(tmp_path / "x.safetensors", "cpu")

    assert not guarded(read)


@pytest.mark.parametrize("line", [b"x" * 5000, b"x" * 1000 + b": 1", b"space: " + b"x" * 1100, b"x:\\n=" + b"x" * 1000])
def test_a_long_field_of_an_nrrd_header_is_refused_before_itk_writes_past_a_buffer(tmp_path, line):
    """ITK's reader crashes on it (seen), so only the look before it is asked here."""
    (tmp_path / "x.nrrd").write_bytes(nrrd(line))
    with pytest.raises(CaseError, match="500 characters"):
        refuse_strange_text_header(tmp_path / "x.nrrd")


def test_a_header_that_does_not_end_is_refused(tmp_path):
    (tmp_path / "x.nrrd").write_bytes(nrrd(*[b"# " + b"x" * 1000] * 1100, b"x" * 5000))
    with pytest.raises(CaseError, match="more than 1048576 bytes"):
        refuse_strange_text_header(tmp_path / "x.nrrd")


def test_tags_of_any_length_are_read(tmp_path):
    (tmp_path / "x.nrrd").write_bytes(nrrd(b"# " + b"x" * 5000, b"Segment0_Tags:=" + b"a" * 5000))
    assert read_image(tmp_path / "x.nrrd").array.shape == (1, 3, 4, 5)
    assert read_header(tmp_path / "x.nrrd").metadata["Segment0_Tags"] == "a" * 5000


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "x/" * 3000])
def test_a_result_that_names_a_file_no_disk_can_hold_is_incomplete_and_not_a_crash(tmp_path, name):
    """Found by coverage-guided fuzzing."""
    _, record = hostile_documents._saved_result()
    content = {**record, "files": {**record["files"], name: "0" * 64}}
    with pytest.raises(CaseError):
        hostile_documents.read_result_file(tmp_path, json.dumps(content).encode())
