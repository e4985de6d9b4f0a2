"""Anatomy-like primitives as signed functions of position: negative inside, about a distance near the surface."""

from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["Ellipsoid", "Tube", "random_direction", "random_rotation"]


def random_direction(rng: np.random.Generator) -> np.ndarray:
    """A unit vector, uniform on the sphere."""
    vector = rng.standard_normal(3)
    return vector / np.linalg.norm(vector)


def random_rotation(rng: np.random.Generator, largest: float = np.pi) -> np.ndarray:
    """A 3x3 rotation about a random axis by up to ``largest`` radians (Rodrigues' formula)."""
    x, y, z = random_direction(rng)
    angle = rng.uniform(-largest, largest)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@dataclass(frozen=True)
class Ellipsoid:
    """A rotated ellipsoid or superellipsoid, in the units of :func:`fields.coordinates`.

    Args:
        centre: Position (3,).
        radii: Half axes (3,).
        rotation: 3x3, rows are the axes.
        power: 2 is an ellipsoid, 3 to 4 is boxier.
    """

    centre: np.ndarray
    radii: np.ndarray
    rotation: np.ndarray
    power: float = 2.0

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        matrix = torch.tensor(self.rotation / self.radii[:, None], dtype=torch.float32)
        offset = matrix @ torch.tensor(self.centre, dtype=torch.float32)
        y = (matrix @ x.flatten(1)) - offset[:, None]
        y = y.square_() if self.power == 2.0 else y.abs_().pow_(self.power)
        norm = y.sum(0).clamp_(min=1e-6).pow_(1 / self.power)
        return ((norm - 1) * float(self.radii.mean())).view(x.shape[1:])

    def jittered(self, rng: np.random.Generator, amount: float) -> "Ellipsoid":
        """The same structure in another subject: moved, scaled and turned a little (``amount`` about 0.1)."""
        return Ellipsoid(
            self.centre + self.radii.mean() * amount * rng.normal(size=3),
            self.radii * np.exp(amount * rng.normal(size=3)),
            self.rotation @ random_rotation(rng, 2 * amount),
            self.power,
        )


@dataclass(frozen=True)
class Tube:
    """A bent tube along a polyline.

    Args:
        points: (n, 3) centre line.
        radii: (n,) radius at each point.
    """

    points: np.ndarray
    radii: np.ndarray

    @classmethod
    def bent(cls, rng: np.random.Generator, start, direction, length: float, radius: float, bend: float) -> "Tube":
        """A tube of ``length`` from ``start`` that turns by up to ``bend`` radians on the way and tapers a little."""
        steps = 5
        points, heading = [np.asarray(start, dtype=float)], np.asarray(direction, dtype=float)
        turn = random_rotation(rng, bend / steps)
        for _ in range(steps - 1):
            points.append(points[-1] + heading * length / (steps - 1))
            heading = turn @ heading
        return cls(np.array(points), radius * np.linspace(1, rng.uniform(0.6, 1.1), steps))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1)
        result = torch.full(flat.shape[1:], 9.0)
        for a, b, ra, rb in zip(self.points[:-1], self.points[1:], self.radii[:-1], self.radii[1:], strict=True):
            start = torch.tensor(a, dtype=torch.float32)[:, None]
            along = torch.tensor(b - a, dtype=torch.float32)
            relative = flat - start
            t = (along @ relative / along.square().sum().clamp(min=1e-9)).clamp_(0, 1)
            distance = (relative - along[:, None] * t).square_().sum(0).sqrt_()
            torch.minimum(result, distance - (float(ra) + float(rb - ra) * t), out=result)
        return result.view(x.shape[1:])

    def jittered(self, rng: np.random.Generator, amount: float) -> "Tube":
        """The same tube in another subject."""
        size = np.linalg.norm(self.points[-1] - self.points[0])
        drift = np.linspace(0.3, 1, len(self.points))[:, None] * rng.normal(size=3) * amount * size
        return Tube(self.points + drift, self.radii * np.exp(amount * rng.normal()))
