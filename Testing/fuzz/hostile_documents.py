"""JSON that comes from outside: cohorts, job folders, catalogues, results and reviews."""

import contextlib
import functools
import json
import platform
import shutil
import tempfile
from pathlib import Path

import numpy as np
from hostile_bytes import damaged_bytes, mutated_json
from hostile_guard import Format
from hypothesis import strategies as st

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.preflight import check_cohort
from SSLSegLib.errors import SSLSegError
from SSLSegLib.jobs.events import EventLog, read_events
from SSLSegLib.jobs.folder import Job, short_name
from SSLSegLib.jobs.lock import JobLock
from SSLSegLib.jobs.manifest import Manifest, write_manifest
from SSLSegLib.jobs.process import cancel_job
from SSLSegLib.jobs.runner import run_job
from SSLSegLib.pseudolabels.label import build_pseudo_label
from SSLSegLib.pseudolabels.review import load_review
from SSLSegLib.pseudolabels.storage import load_pseudo_label, save_pseudo_label
from SSLSegLib.resources import resource
from SSLSegLib.weights.catalogue import load_catalogue
from SSLSegLib.weights.sidecar import read_sidecar
from SSLSegLib.weights.store import read_pins

__all__ = ["FORMATS"]

COHORT = {
    "schema_version": 1,
    "name": "hostile",
    "modality": "CT",
    "window": {"level": 40, "width": 400},
    "classes": [
        {
            "value": 1,
            "name": "liver",
            "color": [1, 2, 3],
            "terminology": {"type": {"scheme": "SCT", "value": "10200004", "meaning": "Liver"}},
        }
    ],
    "cases": [
        {"id": "a", "role": "labelled", "images": ["a.nii.gz"], "label": "a-label.nii.gz"},
        {"id": "b", "role": "unlabelled", "images": ["b.nrrd", "b.mha"], "reference": "b-label.seg.nrrd"},
    ],
}
INPUT = {"path": "/no/such/file", "size": 3, "sha256": "0" * 64}
MANIFEST = {
    "schema_version": 1,
    "kind": "tffs",
    "created": "2026-01-01T00:00:00+00:00",
    "seed": 42,
    "parameters": {"cohort": COHORT, "weights": "sslseg-small", "options": {"insertions": 1}, "device": "cpu"},
    "inputs": {"weights": INPUT, "a/image_0": INPUT},
    "versions": {"sslseg": "0.1.0"},
}
STATE = {"schema_version": 1, "status": "running", "message": "", "cases_done": 1, "cases_total": 2}
LOCK = {
    "schema_version": 1,
    "pid": 999_999,
    "process_start": 1.0,
    "since_boot": 1,
    "host": platform.node(),
    "boot": None,
    "since": "now",
    "token": "t",
    "runs": True,
}
CHECKSUMS = {"schema_version": 1, "sha256": {"labels.nii.gz": "0" * 64, "result.json": "0" * 64}}
REVIEW = {"schema_version": 1, "state": "accepted", "note": "fine", "date": None, "labels_sha256": "0" * 64}
EVENT = {"schema_version": 1, "time": "2026-01-01T00:00:00+00:00", "event": "progress", "stage": "s", "done": 1}
SIDECAR = {
    "schema_version": 1,
    "file": "x.safetensors",
    "size": 10,
    "sha256": "0" * 64,
    "configuration": {"base": "sam2.1_hiera_t", "image_size": 128, "overrides": {"memory_attention": {"d_model": 64}}},
}
PINS = {"x.pt": {"sha256": "0" * 64, "source": "https://example.org/x.pt"}}


def read_cohort(folder: Path, content: bytes) -> None:
    (folder / "cohort.json").write_bytes(content)
    cohort = Cohort.load(folder)
    assert Cohort.from_dict(json.loads(json.dumps(cohort.to_dict())), folder).to_dict() == cohort.to_dict()
    saved = cohort.save(folder / "copy" / "cohort.json")
    assert Cohort.load(folder / "copy").to_dict() == saved.to_dict()
    for case in cohort.cases:
        assert (folder / case.id).resolve().parent == folder.resolve()
    for finding in check_cohort(cohort, output=folder / "out"):
        str(finding)


def read_job_manifest(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    job = Job.open(folder)
    job.manifest.changed_inputs()
    run_job(job)


def _job(folder: Path) -> Job:
    write_manifest(folder / "manifest.json", Manifest.model_validate(MANIFEST))
    return Job(folder, Manifest.model_validate(MANIFEST))


def read_state(folder: Path, content: bytes) -> None:
    job = _job(folder)
    (folder / "state.json").write_bytes(content)
    job.write_state(job.state())


def read_lock(folder: Path, content: bytes) -> None:
    job = _job(folder)
    job.lock_path.write_bytes(content)
    with contextlib.suppress(SSLSegError):
        cancel_job(folder)
    with JobLock(job.lock_path) as lock:
        lock.check()


def read_checksums(folder: Path, content: bytes) -> None:
    job = _job(folder)
    result = job.result_folder("a")
    result.mkdir(parents=True)
    (result / "checksums.json").write_bytes(content)
    assert not job.has_result("a"), "nothing is there but a file of checksums"


def read_event_log(folder: Path, content: bytes) -> None:
    (folder / "events.jsonl").write_bytes(content)
    events = read_events(folder / "events.jsonl")
    with EventLog(folder / "events.jsonl") as log:
        log("stage", stage="after")
    after = read_events(folder / "events.jsonl")
    assert after[: len(events)] == events or repr(after[: len(events)]) == repr(events)  # NaN is not equal to itself
    assert after[-1]["stage"] == "after"


def read_catalogue(folder: Path, content: bytes) -> None:
    (folder / "Models.json").write_bytes(content)
    for entry in load_catalogue(folder / "Models.json").values():
        for file in entry.files:
            path = entry.path_of(file, folder / entry.relative_path)
            assert folder.resolve() in path.resolve().parents


def read_sidecar_file(folder: Path, content: bytes) -> None:
    (folder / "x.json").write_bytes(content)
    read_sidecar(folder / "x.safetensors")


def read_pins_file(folder: Path, content: bytes) -> None:
    (folder / "pins.json").write_bytes(content)
    assert read_pins(folder).get("x.pt", {}).get("sha256") is not None or True


def read_review(folder: Path, content: bytes) -> None:
    (folder / "review.json").write_bytes(content)
    load_review(folder).is_stale(folder)


@functools.cache
def _saved_result() -> tuple[Path, dict]:
    """A real result, made once."""
    folder = Path(tempfile.mkdtemp(prefix="sslseg-fuzz-result-"))
    probability = np.zeros((1, 2, 4, 4), np.float32)
    probability[0, :, 1:3, 1:3] = 0.9
    classes = [SegmentClass(value=1, name="liver", color=(1, 2, 3))]
    label = build_pseudo_label("a", probability, Geometry((2, 4, 4), np.diag([1.0, 1.0, 3.0, 1.0])), classes)
    save_pseudo_label(folder, label, classes)
    return folder, json.loads((folder / "result.json").read_text())


def read_result_file(folder: Path, content: bytes) -> None:
    shutil.copytree(_saved_result()[0], folder / "a")
    (folder / "a" / "result.json").write_bytes(content)
    label = load_pseudo_label(folder / "a")
    assert label.probability.shape[1:] == label.geometry.shape


def read_id(folder: Path, content: bytes) -> None:
    identifier = content.decode("utf-8", "surrogateescape")
    name = short_name(identifier)
    assert name.isascii()
    assert name not in ("", ".", "..")
    assert len(name) <= 64
    (folder / name).mkdir()
    assert (folder / name).resolve().parent == folder.resolve()


@functools.cache
def _catalogue() -> dict:
    return json.loads(resource("Models.json").read_text(encoding="utf-8"))


_line = mutated_json(EVENT).map(lambda line: line.replace(b"\n", b" ") + b"\n")
_events = st.lists(_line | st.just(json.dumps(EVENT).encode() + b"\n"), max_size=6).map(b"".join)
_ids = st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace"))

FORMATS = [
    Format("cohort.json", mutated_json(COHORT), read_cohort),
    Format("manifest.json", mutated_json(MANIFEST), read_job_manifest),
    Format("state.json", mutated_json(STATE), read_state),
    Format("lock.json", mutated_json(LOCK), read_lock),
    Format("checksums.json", mutated_json(CHECKSUMS), read_checksums),
    Format("events.jsonl", _events | _events.flatmap(damaged_bytes), read_event_log),
    Format("Models.json", st.deferred(lambda: mutated_json(_catalogue())), read_catalogue),
    Format("weights sidecar", mutated_json(SIDECAR), read_sidecar_file),
    Format("pins.json", mutated_json(PINS), read_pins_file),
    Format("review.json", mutated_json(REVIEW), read_review),
    Format("result.json", st.deferred(lambda: mutated_json(_saved_result()[1])), read_result_file),
    Format(
        "case ids", st.binary(max_size=300) | st.text(max_size=100).map(lambda t: t.encode("utf-8", "replace")), read_id
    ),
]
