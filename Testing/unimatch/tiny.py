"""A tiny cohort on disk whose volumes differ in size, spacing and pose, and a tiny network to train on it."""

from pathlib import Path

import numpy as np

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.cases.writing import write_label, write_scalar
from SSLSegLib.unimatch.configuration import NetworkConfiguration
from SSLSegLib.unimatch.options import UniMatchOptions

CLASSES = (
    SegmentClass(value=2, name="ball", color=(200, 60, 60)),
    SegmentClass(value=5, name="rod", color=(60, 60, 200)),  # in a single slice of each case
)
NETWORK = NetworkConfiguration(
    hidden=24, layers=4, heads=2, taps=(0, 1, 2, 3), features=8, channels=(6, 8, 10, 12), patch=8, grid=4
)


def tiny_options(**changes: object) -> UniMatchOptions:
    values = {
        "network": NETWORK,
        "size": 32,
        "steps": 6,
        "batch": 2,
        "threshold": 0.3,  # random weights are never sure
        "learning_rate": 1e-3,
        "decoder_factor": 2.0,
        "save_every": 2,
        "report_every": 1,
    }
    return UniMatchOptions.of("quick", **{**values, **changes})


def make_cohort(folder: Path, *, labelled: int = 2, unlabelled: int = 2, test: int = 1, channels: int = 1) -> Cohort:
    rng = np.random.default_rng(3)
    shapes, spacings = [(5, 40, 36), (6, 30, 50), (4, 20, 20)], [(4.0, 1.0, 1.0), (3.0, 1.5, 0.75), (6.0, 2.0, 2.0)]
    cases = []
    for number, role in enumerate(["labelled"] * labelled + ["unlabelled"] * unlabelled + ["test"] * test):
        shape, spacing = shapes[number % 3], spacings[number % 3]
        angle = np.radians(15 * number)
        matrix = np.eye(4)
        matrix[:3, :3] = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
        matrix[:3, :3] *= spacing[::-1]
        matrix[:3, 3] = (-20, 10, 5 * number)
        grid = Geometry(shape, matrix)
        k, j, i = np.indices(shape)
        y, x = j * spacing[1], i * spacing[2]
        labels = np.zeros(shape, np.uint8)
        labels[(y - 15) ** 2 + (x - 14) ** 2 < 64] = 2
        labels[(k == 2) & (abs(y - 30) < 5) & (abs(x - 25) < 6)] = 5
        for channel in range(channels):
            image = 100 + 80 * (labels == 2) + (140 - 70 * channel) * (labels == 5) + rng.normal(0, 4, shape)
            write_scalar(folder / "images" / f"c{number}_{channel}.nii.gz", image.astype(np.float32), grid)
        known = "label" if role == "labelled" else "reference"
        write_label(folder / f"{known}s" / f"c{number}.nii.gz", LabelMap(labels, grid), CLASSES, reference=grid)
        images = tuple(f"images/c{number}_{channel}.nii.gz" for channel in range(channels))
        cases.append(Case(id=f"c{number}", role=role, images=images, **{known: f"{known}s/c{number}.nii.gz"}))
    return Cohort(name="tiny", classes=CLASSES, cases=tuple(cases)).at(folder).save(folder / "cohort.json")


def truth_of(cohort: Cohort, case: Case) -> np.ndarray:
    """Reference as float (classes, K, J, I): a perfect guide."""
    from SSLSegLib.cases.reading import read_label

    label = read_label(cohort, case, "reference").array
    return np.stack([label == each.value for each in CLASSES]).astype(np.float32)
