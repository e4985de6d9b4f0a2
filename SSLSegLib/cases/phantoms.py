"""A cohort that nobody had to share: procedurally generated abdomens, written as files like anyone's data.

Subjects of one population differ by a smooth deformation and by the size and place of their organs. The contrast is
that of an MR image: a bias field, tissue texture, Rician noise, partial volume from averaging eight points a voxel.
Grey levels alone do not find the targets: the spleen and the body wall are as bright as the liver, stomach and great
vessels as bright as the kidneys. Cases are small, made in about a second, and depend only on (seed, number).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from SSLSegLib.cases.classes import Code, SegmentClass, Terminology
from SSLSegLib.cases.cohort import SCHEMA_VERSION, Case, Cohort
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.volume import LabelMap, Volume
from SSLSegLib.cases.writing import write_label, write_scalar
from SSLSegLib.errors import CohortError
from SSLSegLib.seeds import named_rng

__all__ = ["PHANTOM_CLASSES", "make_phantom", "make_phantom_cohort"]

PHANTOM_CLASSES: dict[str, SegmentClass] = {
    segment.name: segment
    for segment in (
        SegmentClass(
            value=1,
            name="liver",
            color=(221, 130, 101),
            terminology=Terminology(type=Code(scheme="SCT", value="10200004", meaning="Liver")),
        ),
        SegmentClass(
            value=2,
            name="kidneys",
            color=(111, 184, 210),
            terminology=Terminology(type=Code(scheme="SCT", value="64033007", meaning="Kidney")),
            largest_component=False,
        ),
        SegmentClass(
            value=3,
            name="spleen",
            color=(157, 108, 162),
            terminology=Terminology(type=Code(scheme="SCT", value="78961009", meaning="Spleen")),
        ),
        SegmentClass(
            value=4,
            name="stomach",
            color=(216, 132, 105),
            terminology=Terminology(type=Code(scheme="SCT", value="69695003", meaning="Stomach")),
        ),
    )
}

_FIELD_OF_VIEW = (120.0, 200.0, 240.0)  # mm along slices, rows, columns
_FINER = 2  # points a voxel along each axis

# Tissues with their grey level; equal levels of touching or nearby tissues are the difficulty.
_AIR, _FAT, _WALL, _MESENTERY, _LUNG, _BONE, _CANAL, _LIVER, _KIDNEY, _SPLEEN, _STOMACH, _VESSEL, _MUSCLE, _BILE = (
    range(14)
)
_BOWEL = (14, 15, 16)
_GREY = np.array(
    [0.0, 0.92, 0.46, 0.80, 0.08, 0.28, 0.95, 0.48, 0.66, 0.48, 0.64, 0.66, 0.40, 1.0, 0.48, 0.60, 0.36], np.float32
)
_TARGETS = {"liver": _LIVER, "kidneys": _KIDNEY, "spleen": _SPLEEN, "stomach": _STOMACH}


@dataclass(frozen=True)
class _Space:
    """Where each point of the fine grid lies in the undeformed body: mm to the right, front and top."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray

    def ball(
        self, centre: Sequence[float], radii: Sequence[float], tilt: float = 0.0, power: float = 2.0
    ) -> np.ndarray:
        """A (super)ellipsoid, tilted in the frontal plane: below 1 inside."""
        x, y, z = (axis - float(middle) for axis, middle in zip((self.x, self.y, self.z), centre, strict=True))
        if tilt:
            cosine, sine = math.cos(tilt), math.sin(tilt)
            x, z = cosine * x - sine * z, sine * x + cosine * z
        total = np.zeros_like(x)
        for part, radius in zip((x, y, z), radii, strict=True):
            part *= 1 / float(radius)
            total += np.square(part, out=part) if power == 2.0 else np.abs(part, out=part) ** power
        return total

    def column(self, centre: Sequence[float], radii: Sequence[float], lean: float = 0.0) -> np.ndarray:
        """An elliptic column along the body, leaning sideways by ``lean`` mm per mm: below 1 inside."""
        x = self.x - centre[0] - lean * self.z
        return (x / radii[0]) ** 2 + ((self.y - centre[1]) / radii[1]) ** 2


def make_phantom(seed: int, number: int, *, shape: tuple[int, int, int] = (24, 80, 96)) -> tuple[Volume, np.ndarray]:
    """One subject.

    Args:
        seed: Names the population's draw.
        number: Which subject.
        shape: Slices, rows, columns; they share a fixed field of view of 120 x 200 x 240 mm.

    Returns:
        The image, whole numbers as a scanner gives them, float32 (1, K, J, I), in an oblique grid; and all tissues
        that can be targets, uint8 (K, J, I) with the values of :data:`PHANTOM_CLASSES`.
    """
    rng = named_rng("phantom", seed, number)
    fine = tuple(size * _FINER for size in shape)
    tissue = _paint(_deformed_space(fine, rng), rng)
    blocks = (shape[0], _FINER, shape[1], _FINER, shape[2], _FINER)

    labels = np.zeros(shape, np.uint8)
    for name, kind in _TARGETS.items():
        share = (tissue == kind).reshape(blocks).mean(axis=(1, 3, 5), dtype=np.float32)
        labels[share > 0.5] = PHANTOM_CLASSES[name].value

    levels = _GREY * (1 + 0.04 * rng.standard_normal(len(_GREY), dtype=np.float32))
    levels[_SPLEEN] = levels[_LIVER] * (1 + 0.02 * rng.standard_normal())
    clean = levels[tissue].reshape(blocks).mean(axis=(1, 3, 5), dtype=np.float32)
    bias = np.exp(_smooth_field(shape, rng, 0.18, waves=2))
    texture = 1 + _smooth_field(shape, rng, 0.04, waves=9)
    noise = 0.035 * rng.standard_normal((2, *shape), dtype=np.float32)
    signal = clean * bias * texture
    measured = np.hypot(signal + noise[0], noise[1]) * (400 * np.exp(0.2 * rng.standard_normal()))
    image = np.round(measured).astype(np.float32)
    return Volume(image[None], _oblique_grid(shape, rng)), labels


def make_phantom_cohort(
    folder: Path | str,
    *,
    seed: int,
    labelled: int = 3,
    unlabelled: int = 6,
    test: int = 2,
    shape: tuple[int, int, int] = (24, 80, 96),
    classes: Sequence[str] = ("liver", "kidneys"),
    name: str = "phantom",
) -> Cohort:
    """Write a cohort of subjects of one population: ``images/``, ``labels/``, ``references/`` and ``cohort.json``.

    Unlabelled and test cases have a reference, which only scores.

    Args:
        folder: Where to; made if absent.
        seed: Names the draw: same seed, same files.
        labelled, unlabelled, test: How many cases of each role.
        shape: Slices, rows, columns.
        classes: Of :data:`PHANTOM_CLASSES`; numbered from 1 in this order.
        name: Of the cohort.

    Raises:
        CohortError: Where the folder holds another cohort, or a class is unknown.
    """
    folder = Path(folder)
    if unknown := [one for one in classes if one not in PHANTOM_CLASSES]:
        raise CohortError(f"Phantoms have no '{unknown[0]}'.", remedy=f"choose among {', '.join(PHANTOM_CLASSES)}.")
    segments = tuple(
        PHANTOM_CLASSES[one].model_copy(update={"value": value}) for value, one in enumerate(classes, start=1)
    )
    cases = []
    for number in range(labelled + unlabelled + test):
        role = "labelled" if number < labelled else "unlabelled" if number < labelled + unlabelled else "test"
        case_id = f"{name}_{number:03d}"
        known = {"label": f"labels/{case_id}.nii.gz"} if role == "labelled" else {}
        scored = {"reference": f"references/{case_id}.nii.gz"} if role != "labelled" else {}
        cases.append(Case(id=case_id, role=role, images=(f"images/{case_id}.nii.gz",), **known, **scored))
    cohort = Cohort(schema_version=SCHEMA_VERSION, name=name, modality="MR", classes=segments, cases=tuple(cases)).at(
        folder
    )
    _refuse_another_cohort(cohort, folder)
    for number, case in enumerate(cohort.cases):
        volume, tissues = make_phantom(seed, number, shape=shape)
        labels = np.zeros(shape, np.uint8)
        for segment in segments:
            labels[tissues == PHANTOM_CLASSES[segment.name].value] = segment.value
        write_scalar(cohort.image_paths(case)[0], volume.array[0].astype(np.int16), volume.geometry)
        path = cohort.label_path(case, "label" if case.role == "labelled" else "reference")
        write_label(path, LabelMap(labels, volume.geometry), segments, reference=volume.geometry)
    return cohort.save(folder / "cohort.json")


def _refuse_another_cohort(cohort: Cohort, folder: Path) -> None:
    if (folder / "cohort.json").exists() and Cohort.load(folder) != cohort.at(folder):
        raise CohortError(f"{folder} holds another cohort already.", remedy="name another folder; nothing was changed.")


def _deformed_space(fine: tuple[int, int, int], rng: np.random.Generator) -> _Space:
    """A subject's own shape: a slight rotation, scaling and shift, and a smooth deformation of some millimetres."""
    k, j, i = (
        (((np.arange(size, dtype=np.float32) + 0.5) / size - 0.5) * length)
        for size, length in zip(fine, _FIELD_OF_VIEW, strict=True)
    )
    # Slices run to the head, rows to the back, columns to the left, as scanners store them.
    z, y, x = k[:, None, None], -j[None, :, None], -i[None, None, :]
    angle = np.radians(4) * rng.standard_normal(3)
    scale = 1 + 0.05 * rng.standard_normal(3)
    shift = (4, 3, 5) * rng.standard_normal(3)
    turned_x = x + np.float32(angle[0]) * y + np.float32(angle[1]) * z
    turned_y = y - np.float32(angle[0]) * x + np.float32(angle[2]) * z
    turned_z = z - np.float32(angle[1]) * x - np.float32(angle[2]) * y
    return _Space(
        *(
            (axis / np.float32(size) + np.float32(offset) + _smooth_field(fine, rng, 3.5, waves=4)).astype(np.float32)
            for axis, size, offset in zip((turned_x, turned_y, turned_z), scale, shift, strict=True)
        )
    )


def _smooth_field(shape: tuple[int, int, int], rng: np.random.Generator, deviation: float, *, waves: int) -> np.ndarray:
    """A random float32 (K, J, I) field of the lowest ``waves`` cosines along each axis, of a given deviation."""
    weights = rng.standard_normal((waves,) * 3, dtype=np.float32)
    orders = np.arange(waves)
    weights /= 1 + sum(np.meshgrid(orders, orders, orders, indexing="ij"))
    weights[0, 0, 0] = 0
    for size in shape:
        waves_here = np.cos(np.pi * np.outer(orders, (np.arange(size) + 0.5) / size)).astype(np.float32)
        weights = np.tensordot(weights, waves_here, axes=(0, 0))
    return weights * np.float32(deviation / weights.std())


def _paint(space: _Space, rng: np.random.Generator) -> np.ndarray:
    """Tissues of the fine grid, painted from the outside in; later ones lie over earlier ones."""

    def near(centre: Sequence[float], by: float = 2.5) -> np.ndarray:
        return np.asarray(centre) + by * rng.standard_normal(3)

    def about(radii: Sequence[float], by: float = 0.06) -> np.ndarray:
        return np.asarray(radii) * (1 + by * rng.standard_normal(len(radii)))

    x, y, z = space.x, space.y, space.z
    tissue = np.zeros(x.shape, np.uint8)
    body = space.ball((0, 0, 0), (106, 82, 1e6), power=2.5)
    tissue[body < 1] = _FAT
    wall = space.ball((0, 2, 0), (95, 70, 1e6), power=2.5)
    tissue[wall < 1] = _WALL
    cavity = space.ball((0, 2, 0), about((85, 60, 1e6), 0.02), power=2.5) < 1
    tissue[cavity] = _MESENTERY
    inside = space.ball((0, 2, 0), (82.5, 57.5, 1e6), power=2.5) < 1

    for _ in range(10):
        centre = rng.uniform((-60, 0, -70), (60, 50, -5))
        tissue[inside & (space.ball(centre, about((13, 13, 15), 0.2)) < 1)] = rng.choice(_BOWEL)

    liver_centre = near((44, 4, 6))
    liver = np.minimum(
        space.ball(liver_centre, about((42, 52, 44)), tilt=0.15, power=2.3),
        space.ball(liver_centre + near((-36, 26, 8), 2), about((44, 22, 24)), tilt=-0.2),
    )
    tissue[inside & (liver < 1)] = _LIVER
    stomach = space.ball(near((-36, 18, 4)), about((25, 27, 34)), tilt=0.35)
    tissue[inside & (stomach < 1) & (liver > 1.03)] = _STOMACH
    tissue[inside & (space.ball(near((-62, -20, 10)), about((20, 28, 30)), tilt=0.2) < 1)] = _SPLEEN
    dome = 44 - ((np.abs(x) - 45) ** 2 + (y + 5) ** 2) / 90
    tissue[inside & (z > dome) & (liver > 0.9)] = _LUNG
    tissue[(space.ball(near((36, 34, -16)), about((10, 12, 17))) < 1)] = _BILE

    for side in (1, -1):
        tissue[space.column((26 * side, -40), (14, 13), lean=-0.1 * side) < 1 - np.clip(z / 40, 0, 2)] = _MUSCLE
        centre = near((47 * side, -34, -18 - 4 * side))
        kidney = space.ball(centre, about((19, 20, 32)), tilt=-0.25 * side)
        hilum = space.ball(centre - (17 * side, -4, 0), (12, 10, 12))
        tissue[kidney < 1.18] = _MESENTERY  # a rim of fat
        tissue[(kidney < 1) & (hilum > 1)] = _KIDNEY

    spine = space.column((0, -48), (19, 17))
    tissue[spine < 1.15] = _FAT
    tissue[spine < 1] = np.where(np.sin(z / 5) > -0.8, _BONE, _MUSCLE)[spine < 1]
    tissue[space.column((0, -68), (8, 7)) < 1] = _CANAL
    tissue[space.column((-9, -22), (8, 8), lean=0.05) < 1] = _VESSEL
    tissue[space.column((15, -18), (9, 8), lean=-0.03) < 1] = _VESSEL
    return tissue


def _oblique_grid(shape: tuple[int, int, int], rng: np.random.Generator) -> Geometry:
    """Slices to the head, rows to the back, columns to the left, turned by some degrees about every axis."""
    a, b, c = np.radians(6) * rng.standard_normal(3)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    spacing = np.array([length / size for length, size in zip(_FIELD_OF_VIEW, shape, strict=True)])[::-1]
    matrix = np.eye(4)
    matrix[:3, :3] = about_x @ about_y @ about_z @ np.diag([-1, -1, 1]) * spacing
    centre = (np.array(shape[::-1]) - 1) / 2
    matrix[:3, 3] = rng.normal(0, 20, 3) - matrix[:3, :3] @ centre
    return Geometry(shape, matrix)
