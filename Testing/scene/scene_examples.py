"""Small images on awkward grids, and classes."""

import numpy as np
from scipy.spatial.transform import Rotation

from SSLSegLib.cases.classes import Code, SegmentClass, Terminology
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.volume import LabelMap, Volume
from SSLSegLib.scene.marks import PseudoLabelMarks


def grid(rotation: np.ndarray | None = None, spacing=(0.7, 1.3, 4.4), shape=(5, 7, 9)) -> Geometry:
    matrix = np.eye(4)
    matrix[:3, :3] = (np.eye(3) if rotation is None else rotation) @ np.diag(spacing)
    matrix[:3, 3] = [10.123456789, -80.5, 33.3]
    return Geometry(shape, matrix)


OBLIQUE = Rotation.from_euler("xyz", [20, -35, 110], degrees=True).as_matrix()
GRIDS = {
    "axis-aligned": grid(),
    "oblique": grid(OBLIQUE),
    "flipped left to right": grid(np.diag([-1.0, 1.0, 1.0])),
    "flipped and oblique": grid(OBLIQUE @ np.diag([1.0, -1.0, 1.0])),
    "sagittal": grid(np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]])),
    "anisotropic 20 to 1": grid(OBLIQUE, spacing=(0.4, 0.4, 8.0)),
    "a single slice": grid(OBLIQUE, shape=(1, 7, 9)),
}

CLASSES = (
    SegmentClass(
        value=1,
        name="Liver",
        color=(200, 100, 50),
        terminology=Terminology(type=Code(scheme="SCT", value="10200004", meaning="Liver")),
    ),
    SegmentClass(value=7, name="Lésion: 50%|grade 2", color=(1, 2, 250)),
)

MARKS = PseudoLabelMarks(
    case_id="case_7",
    method="TFFS-MedSAM2",
    weights="tiny",
    weights_sha256="ab" * 32,
    seed=3,
    labelled_cases=("case_1", "case_2"),
    created="2026-01-31T12:34:56+00:00",
    version="0.1.0",
)


def random_volume(geometry: Geometry, seed: int = 0, channels: int = 1) -> Volume:
    rng = np.random.default_rng(seed)
    return Volume(rng.normal(100, 40, (channels, *geometry.shape)).astype(np.float32), geometry)


def random_label(geometry: Geometry, seed: int = 0) -> LabelMap:
    rng = np.random.default_rng(seed)
    return LabelMap(rng.choice(np.array([0, 1, 7], dtype=np.uint8), geometry.shape), geometry)
