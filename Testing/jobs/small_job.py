"""A tiny ``tffs`` manifest over files of its own, as several test files use it."""

import importlib.util
from pathlib import Path

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.manifest import Manifest
from SSLSegLib.jobs.tffs import tffs_manifest
from SSLSegLib.tffs.options import TffsOptions

_SPECIFICATION = importlib.util.spec_from_file_location(
    "small_cohort", Path(__file__).parent.parent / "small_cohort.py"
)
small_cohort = importlib.util.module_from_spec(_SPECIFICATION)
_SPECIFICATION.loader.exec_module(small_cohort)


def small_manifest(
    folder: Path, *, unlabelled: int = 3, slices: int = 4, classes: int = 1, threshold: float = 0.5
) -> Manifest:
    path = small_cohort.write_small_cohort(
        folder / "cohort", labelled=1, unlabelled=unlabelled, slices=slices, classes=classes
    )
    weights = small_cohort.write_random_weights(folder / "tiny.safetensors")
    options = TffsOptions(insertions=2, largest_component=False, threshold=threshold)
    return tffs_manifest(
        Cohort.load(path), str(weights), options, seed=3, device="cpu", threads=1, report=False, scene=False
    )


def contents(job: Job) -> dict[str, bytes]:
    results = job.folder / "results"
    return {path.relative_to(results).as_posix(): path.read_bytes() for path in sorted(results.rglob("*.*"))}
