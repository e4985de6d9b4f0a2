"""A small job: a cohort on disk with references and the pseudo-labels of its unlabelled cases."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.cases.writing import write_label, write_scalar
from SSLSegLib.pseudolabels.label import build_pseudo_label, make_provenance
from SSLSegLib.pseudolabels.storage import save_pseudo_label

CLASSES = (SegmentClass(value=1, name="liver"), SegmentClass(value=3, name="spleen"))
GRID = Geometry((6, 26, 20), np.array([[-1.5, 0, 0, 9.0], [0, -1.0, 0, 4.0], [0, 0, 4.0, -7.0], [0, 0, 0, 1]]))


@dataclass
class SmallJob:
    folder: Path
    cohort: Cohort
    reference: LabelMap

    @property
    def results(self) -> Path:
        return self.folder / "results"


@pytest.fixture(scope="session")
def shared_job(tmp_path_factory) -> SmallJob:
    """The job for tests that leave it as it is."""
    return make_job(tmp_path_factory.mktemp("shared"))


@pytest.fixture
def job(shared_job, tmp_path) -> SmallJob:
    """A copy of the job, to be changed at will."""
    folder = tmp_path / "job"
    for name in ("images", "references", "results", "cohort.json"):
        source = shared_job.folder / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    return SmallJob(folder, Cohort.load(folder / "cohort.json"), shared_job.reference)


def make_job(tmp_path: Path) -> SmallJob:
    """Cases shifted by 0, 1 and 3 voxels from their reference, one where nothing is found, one without reference."""
    folder = tmp_path / "job"
    truth = np.zeros(GRID.shape, np.uint8)
    truth[1:5, 4:12, 5:12] = 1
    truth[2:4, 16:22, 6:13] = 3
    reference = LabelMap(truth, GRID)
    noise = gaussian_filter(np.random.default_rng(0).normal(size=GRID.shape), 1)
    cases = []
    for case_id in ("exact", "near", "off", "missed", "unknown"):
        write_scalar(folder / f"images/{case_id}.nii.gz", (truth * 50 + 100 * noise).astype(np.int16), GRID)
        if case_id != "unknown":
            write_label(folder / f"references/{case_id}.nii.gz", reference, CLASSES, reference=GRID)
        cases.append(
            Case(
                id=case_id,
                role="unlabelled",
                images=(f"images/{case_id}.nii.gz",),
                reference=None if case_id == "unknown" else f"references/{case_id}.nii.gz",
            )
        )
        shift, height = {"near": (1, 0.9), "off": (3, 0.8), "missed": (0, 0.2)}.get(case_id, (0, 0.95))
        sure = np.stack([np.roll(truth == each.value, shift, axis=2) for each in CLASSES]).astype(np.float32)
        provenance = make_provenance("TFFS-MedSAM2", seed=1, labelled=["a"], options={"insertions": 5}, weights="tiny")
        label = build_pseudo_label(case_id, 0.02 + (height - 0.02) * sure, GRID, CLASSES, provenance=provenance)
        save_pseudo_label(folder / "results" / case_id, label, CLASSES)
    cohort = Cohort(name="phantoms", classes=CLASSES, cases=tuple(cases)).at(folder).save(folder / "cohort.json")
    return SmallJob(folder, cohort, reference)
