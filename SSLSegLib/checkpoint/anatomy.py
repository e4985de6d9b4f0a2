"""Random anatomies as label maps: several subjects of one anatomy, and the structures that can be asked for.

An anatomy is a list of *complexes* painted over parcels of background. Structures and tissues are two things: many
structures share one tissue (chambers and vessels are all blood), so that brightness does not tell which one is meant;
only walls, place and shape do, and some boundaries show in no image at all (a chamber cut by a plane).
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F

from .fields import coordinates, smooth_fields
from .primitives import Ellipsoid, Tube, random_direction, random_rotation

__all__ = ["SHAPE", "Anatomy", "Complex", "Subject"]

SHAPE = (48, 128, 128)
_COARSE = tuple(size // 2 for size in SHAPE)  # signed functions are smooth: half the resolution is enough


@dataclass(frozen=True)
class Complex:
    """Chambers, the wall around and between them, and vessels that leave them.

    Args:
        chambers: (primitive, structure) of each chamber; where two overlap, the deeper one wins.
        vessels: (tube, structure) of each vessel.
        wall: Structure of the wall.
        outer, septum, vessel: Thickness of the wall around all chambers, between two, around vessels; 0 is none.
        cut: Optional plane (normal, offset) that gives the far side of chamber 0 to the structure ``cut_structure``.
        optional: The complex may be absent in a subject.
        lesions: Structure of lesions inside the chambers, one place in each subject; None is none.
    """

    chambers: tuple[tuple[Ellipsoid, int], ...]
    vessels: tuple[tuple[Tube, int], ...] = ()
    wall: int = 0
    outer: float = 0.0
    septum: float = 0.0
    vessel: float = 0.0
    cut: tuple[np.ndarray, float] | None = None
    cut_structure: int = 0
    optional: bool = False
    lesions: int | None = None

    def jittered(self, rng: np.random.Generator, amount: float) -> "Complex":
        """This complex in another subject: moved as a whole, each part changed a little."""
        shift = 0.06 * amount / 0.1 * rng.normal(size=3)

        def moved(part):
            part = part.jittered(rng, amount)
            if isinstance(part, Tube):
                return replace(part, points=part.points + shift)
            return replace(part, centre=part.centre + shift)

        return replace(
            self,
            chambers=tuple((moved(part), structure) for part, structure in self.chambers),
            vessels=tuple((moved(part), structure) for part, structure in self.vessels),
            outer=self.outer * np.exp(0.25 * rng.normal()),
            septum=self.septum * np.exp(0.25 * rng.normal()),
        )

    def paint(self, labels: torch.Tensor, x: torch.Tensor, rng: np.random.Generator) -> None:
        """Write the structures into ``labels`` (uint8 (K, J, I)); ``x`` are the coarse warped coordinates."""

        def fine(values: torch.Tensor) -> torch.Tensor:
            return F.interpolate(values[None, None], labels.shape, mode="trilinear", align_corners=False)[0, 0]

        depth = torch.stack([part(x) for part, _ in self.chambers])
        names = torch.tensor([structure for _, structure in self.chambers], dtype=torch.uint8)
        union = fine(depth.amin(0))
        if self.outer > 0:
            labels[union < self.outer] = self.wall
        tubes: dict[int, torch.Tensor] = {}
        for tube, structure in self.vessels:
            value = tube(x)
            tubes[structure] = torch.minimum(tubes[structure], value) if structure in tubes else value
        tubes = {structure: fine(value) for structure, value in tubes.items()}
        if self.vessel > 0:
            for value in tubes.values():
                labels[value < self.vessel] = self.wall
        for structure, value in tubes.items():
            labels[value < 0] = structure
        inside = union < 0
        if len(self.chambers) > 1:
            fine_depth = F.interpolate(depth[None], labels.shape, mode="trilinear", align_corners=False)[0]
            labels[inside] = names[fine_depth.argmin(0)[inside]]
            if self.septum > 0:
                second = fine_depth.topk(2, dim=0, largest=False).values
                labels[inside & (second[1] - second[0] < 2 * self.septum)] = self.wall
        else:
            labels[inside] = names[0]
        if self.cut is not None:
            normal, offset = self.cut
            centre = torch.tensor(self.chambers[0][0].centre, dtype=torch.float32)
            side = torch.einsum(
                "c,ckji->kji", torch.tensor(normal, dtype=torch.float32), x - centre[:, None, None, None]
            )
            labels[(labels == names[0]) & (fine(side) > offset)] = self.cut_structure
        if self.lesions is not None:
            for _ in range(rng.integers(1, 4)):
                host = self.chambers[rng.integers(len(self.chambers))][0]
                place = host.centre + host.rotation.T @ (host.radii * random_direction(rng) * rng.uniform(0, 0.8))
                size = np.maximum(host.radii.mean() * rng.uniform(0.12, 0.35, 3), 0.04)
                lesion = fine(Ellipsoid(place, size, random_rotation(rng))(x))
                labels[inside & (lesion < 0)] = self.lesions


@dataclass
class Subject:
    """One subject: ``labels`` uint8 (K, J, I) of structures."""

    labels: torch.Tensor


@dataclass
class Anatomy:
    """What all subjects of a generated cohort share.

    Args:
        complexes: In painting order.
        tissues: Tissue of each structure; 0 is air and outside.
        candidates: Sets of structures that can be a target.
        parcels: Structures of the background parcels.
        seed: Of the shared warp and background fields.
        body: Outline of the body, or None where the field of view lies inside it.
        skin: Structure and thickness of a layer of fat under the outline.
    """

    complexes: list[Complex]
    tissues: list[int]
    candidates: list[tuple[int, ...]]
    parcels: list[int]
    seed: int
    body: Ellipsoid | None
    skin: tuple[int, float]
    warp: float = 0.08
    parcel_cells: int = 4
    tissue_count: int = field(default=6)

    def subject(self, rng: np.random.Generator, *, amount: float = 0.1) -> Subject:
        """Draw a subject. ``amount`` is how much subjects differ (0.05 alike, 0.15 very different)."""
        shared = np.random.default_rng(self.seed)
        x = coordinates(_COARSE)
        warp = smooth_fields(shared, 3, _COARSE, 3) * self.warp + smooth_fields(shared, 3, _COARSE, 8) * self.warp * 0.3
        own = smooth_fields(rng, 3, _COARSE, 3) * 0.4 * amount + smooth_fields(rng, 3, _COARSE, 7) * 0.12 * amount
        turn = torch.tensor(random_rotation(rng, 2.0 * amount) * np.exp(amount * rng.normal()), dtype=torch.float32)
        shift = torch.tensor(amount * 0.6 * rng.normal(size=3), dtype=torch.float32)
        x = torch.einsum("ab,bkji->akji", turn, x) + shift[:, None, None, None] + warp + own

        cells = (max(2, self.parcel_cells // 2), self.parcel_cells, self.parcel_cells)
        fields = smooth_fields(shared, len(self.parcels), SHAPE, cells)
        fields = fields + smooth_fields(rng, len(self.parcels), SHAPE, cells) * (4 * amount)
        labels = torch.tensor(self.parcels, dtype=torch.uint8)[fields.argmax(0)]
        for part in self.complexes:
            if part.optional and rng.random() < 0.15:
                continue
            part.jittered(rng, amount).paint(labels, x, rng)
        if self.body is not None:
            outline = F.interpolate(self.body(x)[None, None], SHAPE, mode="trilinear", align_corners=False)[0, 0]
            labels[outline > -self.skin[1]] = self.skin[0]
            labels[outline > 0] = 0
        return Subject(labels)
