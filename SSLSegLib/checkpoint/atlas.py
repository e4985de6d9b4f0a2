"""Draws anatomies: which complexes there are, which tissue each structure is made of, and what can be asked for."""

import numpy as np

from .anatomy import Anatomy, Complex
from .primitives import Ellipsoid, Tube, random_direction, random_rotation

__all__ = ["draw_anatomy"]


class _Draft:
    """Collects structures, tissues and candidates while an anatomy is drawn."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.tissue_count = int(rng.integers(5, 10))
        # Mostly organs differ from what lies behind them (and not from each other); otherwise edges vanish at random.
        self.background = int(rng.integers(2, self.tissue_count - 1)) if rng.random() < 0.65 else None
        self.tissues = [0]
        self.candidates: list[tuple[int, ...]] = []

    def tissue(self) -> int:
        """A tissue for an organ."""
        return int(self.rng.integers(self.background or 1, self.tissue_count))

    def behind(self) -> int:
        """A tissue for the background."""
        return int(self.rng.integers(1, self.background or self.tissue_count))

    def wall(self, inside: int) -> int:
        """A structure of another tissue than ``inside``."""
        return self.structure(1 + (inside + int(self.rng.integers(self.tissue_count - 2))) % (self.tissue_count - 1))

    def structure(self, tissue: int | None = None) -> int:
        self.tissues.append(self.tissue() if tissue is None else tissue)
        return len(self.tissues) - 1

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def place(self, spread: float = 0.55) -> np.ndarray:
        return self.rng.uniform(-spread, spread, 3)

    def ellipsoid(self, centre: np.ndarray, smallest: float, largest: float) -> Ellipsoid:
        radius = np.exp(self.rng.uniform(np.log(smallest), np.log(largest)))
        radii = radius * np.exp(0.25 * self.rng.normal(size=3)) * np.array([1.5, 1.0, 1.0])  # few slices, longer in k
        return Ellipsoid(centre, radii, random_rotation(self.rng), float(self.rng.choice([2.0, 2.0, 3.0])))

    def thickness(self, smallest: float, largest: float, present: float = 1.0) -> float:
        return float(self.rng.uniform(smallest, largest)) if self.chance(present) else 0.0


def _chambers(draft: _Draft) -> list[Complex]:
    """A heart of sorts: chambers of one tissue, thin walls, vessels that leave them, big vessels beside them."""
    rng = draft.rng
    centre, size = draft.place(0.3), rng.uniform(0.16, 0.34)
    blood = draft.tissue()
    wall = draft.wall(blood)
    chambers, vessels, names = [], [], []
    for _ in range(rng.integers(2, 6)):
        name = draft.structure(blood if draft.chance(0.85) else None)
        place = centre + random_direction(rng) * size * rng.uniform(0.7, 1.5)
        chambers.append((draft.ellipsoid(place, 0.7 * size, 1.3 * size), name))
        names.append(name)
        draft.candidates += [(name,)] * 2
        if draft.chance(0.6):
            branch = draft.structure(draft.tissues[name])
            for _ in range(rng.integers(1, 5)):
                outward = place - centre + 0.8 * size * random_direction(rng)
                outward /= np.linalg.norm(outward)
                radius = size * rng.uniform(0.15, 0.45)
                tube = Tube.bent(rng, place + outward * 0.3 * size, outward, rng.uniform(0.4, 1.2), radius, 1.5)
                vessels.append((tube, branch))
            draft.candidates += [(name, branch)] * 2 + [(branch,)]
    for _ in range(rng.integers(0, 3)):
        name = draft.structure(blood)
        sideways = random_direction(rng)
        start = centre + sideways * size * rng.uniform(1.0, 2.2) - np.array([1.2, 0, 0])
        heading = np.array([1.0, *rng.normal(0, 0.25, 2)])
        vessels.append((Tube.bent(rng, start, heading, 2.4, size * rng.uniform(0.3, 0.7), 0.6), name))
        draft.candidates.append((name,))
    draft.candidates += [tuple(names), (wall,), tuple(names[:2])]
    cut_structure, cut = 0, None
    if draft.chance(0.3):
        cut_structure = draft.structure(draft.tissues[names[0]])
        cut = (random_direction(rng), float(rng.uniform(-0.3, 0.3) * size))
        draft.candidates += [(cut_structure,), (names[0], cut_structure)]
    return [
        Complex(
            tuple(chambers),
            tuple(vessels),
            wall,
            outer=draft.thickness(0.015, 0.09, 0.75),
            septum=draft.thickness(0.008, 0.03, 0.75),
            vessel=draft.thickness(0.01, 0.025, 0.6),
            cut=cut,
            cut_structure=cut_structure,
        )
    ]


def _organ(draft: _Draft) -> list[Complex]:
    """One organ, perhaps with a capsule, nested shells, an implicit boundary inside or lesions."""
    rng = draft.rng
    shape = draft.ellipsoid(draft.place(), 0.14, 0.5)
    name = draft.structure()
    wall = draft.wall(draft.tissues[name])
    draft.candidates += [(name,)] * 2
    cut_structure, cut, lesions = 0, None, None
    if draft.chance(0.25):
        cut_structure = draft.structure(draft.tissues[name])
        cut = (random_direction(rng), float(rng.uniform(-0.3, 0.3) * shape.radii.mean()))
        draft.candidates += [(cut_structure,), (name, cut_structure)]
    if draft.chance(0.25):
        lesions = draft.structure()
        draft.candidates += [(lesions,), (lesions, name)]
    outer = draft.thickness(0.02, 0.1, 0.4)
    if outer:
        draft.candidates += [(wall,), (wall, name)]
    complexes = [Complex(((shape, name),), (), wall, outer, cut=cut, cut_structure=cut_structure, lesions=lesions)]
    if draft.chance(0.3):
        core = draft.structure()
        inner = Ellipsoid(shape.centre, shape.radii * rng.uniform(0.4, 0.8), shape.rotation, shape.power)
        complexes.append(Complex(((inner, core),)))
        draft.candidates += [(core,), (core, name)]
    return complexes


def _pair(draft: _Draft) -> list[Complex]:
    """Two organs mirrored across the mid-plane, of one tissue; one or both can be asked for."""
    rng = draft.rng
    centre = draft.place(0.45)
    centre[2] = rng.uniform(0.25, 0.6)
    one = draft.ellipsoid(centre, 0.12, 0.32)
    mirror = np.diag([1.0, 1.0, -1.0])
    other = Ellipsoid(mirror @ one.centre, one.radii, one.rotation @ mirror, one.power).jittered(rng, 0.06)
    first = draft.structure()
    second, wall = draft.structure(draft.tissues[first]), draft.wall(draft.tissues[first])
    draft.candidates += [(first,), (second,), (first, second), (first, second)]
    outer = draft.thickness(0.015, 0.05, 0.4)
    return [Complex(((one, first), (other, second)), (), wall, outer)]


def _cluster(draft: _Draft) -> list[Complex]:
    """Several touching instances of one tissue with only one of them, or all, as target."""
    rng = draft.rng
    tissue = draft.tissue()
    wall = draft.wall(tissue)
    step = random_direction(rng) * rng.uniform(0.2, 0.35)
    turn = random_rotation(rng, 0.7)
    place = draft.place(0.4) - 2 * step
    chambers = []
    for _ in range(rng.integers(3, 8)):
        chambers.append((draft.ellipsoid(place, 0.08, 0.18), draft.structure(tissue)))
        place, step = place + step, turn @ step
    names = tuple(name for _, name in chambers)
    draft.candidates += [names, (names[len(names) // 2],), (names[1],)]
    return [Complex(tuple(chambers), (), wall, draft.thickness(0.01, 0.03, 0.5), draft.thickness(0.006, 0.02, 0.6))]


def _tubes(draft: _Draft) -> list[Complex]:
    """Long vessels or gut through the field of view, from a small common root."""
    rng = draft.rng
    root = draft.place(0.4)
    hub = draft.structure()
    wall = draft.wall(draft.tissues[hub])
    vessels = []
    for _ in range(rng.integers(2, 5)):
        name = draft.structure(draft.tissues[hub] if draft.chance(0.8) else None)
        radius = rng.uniform(0.05, 0.16)
        vessels.append((Tube.bent(rng, root, random_direction(rng), rng.uniform(0.7, 1.6), radius, 2.5), name))
        draft.candidates.append((name,))
    draft.candidates.append((hub, *(name for _, name in vessels)))
    shape = draft.ellipsoid(root, 0.06, 0.16)
    return [Complex(((shape, hub),), tuple(vessels), wall, vessel=draft.thickness(0.01, 0.04, 0.5))]


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """A random anatomy of two to five complexes over two to seven parcels of background."""
    draft = _Draft(rng)
    parcels = [draft.structure(draft.behind()) for _ in range(rng.integers(2, 8))]
    fat = draft.structure(draft.behind())
    kinds = rng.choice(
        np.array([_chambers, _organ, _pair, _cluster, _tubes], dtype=object),
        size=rng.integers(2, 6),
        p=[0.3, 0.3, 0.15, 0.12, 0.13],
    )
    complexes: list[Complex] = []
    for kind in kinds:
        made = kind(draft)
        optional = len(kinds) > 2 and draft.chance(0.3)
        complexes += [Complex(**{**part.__dict__, "optional": optional}) for part in made]
    body = None
    if draft.chance(0.5):
        radii = np.array([2.5, *rng.uniform(0.75, 1.15, 2)])
        body = Ellipsoid(rng.normal(0, 0.05, 3), radii, np.eye(3), float(rng.choice([2.0, 3.0])))
    return Anatomy(
        complexes=complexes,
        tissues=draft.tissues,
        candidates=draft.candidates,
        parcels=parcels,
        seed=int(rng.integers(2**31)),
        body=body,
        skin=(fat, float(rng.uniform(0.02, 0.12))),
        warp=float(rng.uniform(0.03, 0.09)),
        parcel_cells=int(rng.integers(3, 8)),
        tissue_count=draft.tissue_count,
    )
