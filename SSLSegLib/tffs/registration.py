"""Deformable registration of labelled volumes to an unlabelled one, whatever their contrast. Not in the paper.

Self-similarity descriptors (MIND-SSC, Heinrich et al., MICCAI 2013) say how a neighbourhood is built and not how bright
it is. A search over all displacements of a coarse grid, made smooth by convex coupling (Heinrich et al., MICCAI 2014),
finds about where everything lies; gradient descent on a finer grid does the rest (as ConvexAdam, Siebert et al., 2021).
One or two seconds a pair on a processor, where mutual information with B-splines takes minutes.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F

__all__ = [
    "ITERATIONS",
    "SIZE",
    "Displacement",
    "Registrable",
    "mean_of_moved",
    "registrable",
    "registration_device",
]

SIZE = (48, 64, 64)
"""Volumes are looked at with at most this many voxels along (K, J, I)."""
ITERATIONS = 60
"""Of gradient descent."""
_FINEST = 160  # voxels along an axis at which masks are moved
_SPACING = 4  # voxels from one point of the coarse grid to the next
_REACH = 4  # steps of two voxels that the search looks to each side
_STRIDE = 2
_COUPLINGS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_SMOOTHNESS = 0.02
_RATE = 1.0

_NEIGHBOURS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (1, 0, 0), (0, 1, 0), (0, 0, 1))
_PAIRS = tuple((a, b) for a in range(6) for b in range(a) if a - b != 3)  # those a right angle apart


class Registrable:
    """A volume made ready: descriptors float32 (1, 12 x channels, k, j, i) of at most ``SIZE`` voxels."""

    def __init__(self, descriptors: torch.Tensor) -> None:
        self.descriptors = descriptors

    def displacement(self, moving: "Registrable", *, iterations: int = ITERATIONS) -> "Displacement":
        """Where each place of this volume lies in another.

        Args:
            moving: A volume made ready with the same shape.
            iterations: Of gradient descent.
        """
        found = _searched(self.descriptors, moving.descriptors)
        return Displacement(_refined(self.descriptors, moving.descriptors, found, iterations))


class Displacement:
    """From each place of the fixed volume to its place in the moving one: (1, 3, k, j, i), in shares of each axis."""

    def __init__(self, field: torch.Tensor) -> None:
        self.field = field

    def moved(self, volume: np.ndarray | torch.Tensor, shape: Sequence[int], *, nearest: bool = False) -> torch.Tensor:
        """What the moving volume shows at each voxel of the fixed one.

        Args:
            volume: (K, J, I), any size, in the axes of the volume that was registered.
            shape: (K, J, I) of the fixed volume.
            nearest: Take values as they are: for label maps.

        Returns:
            float32 of that shape.
        """
        volume = torch.as_tensor(np.ascontiguousarray(volume)).to(self.field.device, torch.float32)
        at = _places(tuple(shape), self.field)
        mode = "nearest" if nearest else "bilinear"
        return F.grid_sample(volume[None, None], at, mode=mode, padding_mode="border", align_corners=False)[0, 0]


def registrable(
    image: np.ndarray | torch.Tensor, size: Sequence[int] | None = None, device: torch.device | str = "cpu"
) -> Registrable:
    """A volume as registration sees it.

    Args:
        image: (K, J, I) or (C, K, J, I), display range or any other.
        size: To look at it with, by relative position; default: its own, at most ``SIZE``.
        device: Where to compute.
    """
    image = torch.as_tensor(np.ascontiguousarray(image)).to(device, torch.float32)
    channels = image.view(-1, 1, *image.shape[-3:])
    size = tuple(size or map(min, image.shape[-3:], SIZE))
    small = F.interpolate(channels, size, mode="trilinear", align_corners=False)
    return Registrable(torch.cat([_descriptors(one[None]) for one in small], 1))


def registration_device(device: torch.device) -> torch.device:
    """Where volumes are registered when networks run on ``device``: Apple's GPUs lack the sampling of volumes."""
    return device if device.type == "cuda" else torch.device("cpu")


def mean_of_moved(
    labelled: Iterable[tuple["Displacement", np.ndarray]], shape: Sequence[int], blur: float
) -> np.ndarray:
    """How often a class lies at each voxel, from labelled masks moved there.

    Args:
        labelled: Where each place lies in a labelled volume, and the class's mask there, bool (K, J, I).
        shape: (K, J, I) of the volume that they are moved to.
        blur: Standard deviation as a share of each axis.

    Returns:
        float32 of that shape, 0 to 1.
    """
    from scipy.ndimage import gaussian_filter

    # The fields are smooth and the result is blurred: no need for every voxel of a large volume.
    size = tuple(min(length, _FINEST) for length in shape)
    moved = [displacement.moved(mask, size) for displacement, mask in labelled]
    mean = torch.stack(moved).mean(0)
    blurred = torch.from_numpy(gaussian_filter(mean.cpu().numpy(), [blur * n for n in size], mode="nearest"))
    fine = F.interpolate(blurred[None, None], tuple(shape), mode="trilinear", align_corners=False)[0, 0]
    return fine.clamp_(0, 1).numpy()


def _descriptors(image: torch.Tensor) -> torch.Tensor:
    """MIND-SSC of (1, 1, k, j, i): how unlike neighbouring patches are, relative to how unlike they are in the mean."""
    shape = image.shape[2:]
    padded = F.pad(image, [1] * 6, mode="replicate")

    def shifted(offset: tuple[int, int, int]) -> torch.Tensor:
        k, j, i = (slice(1 + o, 1 + o + n) for o, n in zip(offset, shape, strict=True))
        return padded[:, :, k, j, i]

    neighbours = [shifted(offset) for offset in _NEIGHBOURS]
    unlike = _smooth(torch.cat([(neighbours[a] - neighbours[b]) ** 2 for a, b in _PAIRS], 1))
    unlike = unlike - unlike.amin(1, keepdim=True)
    scale = unlike.mean(1, keepdim=True)
    overall = scale.mean().clamp(min=1e-12)
    return torch.exp(-unlike / scale.clamp(1e-3 * overall, 1e3 * overall))


def _searched(fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
    """The best displacement of each point of a coarse grid that its neighbours agree to, (1, 3, k, j, i) in voxels."""
    reach = _REACH * _STRIDE
    # The other volume's blocks at every voxel; beyond its end it goes on as there.
    short = [-m % _SPACING for m in fixed.shape[2:]]
    whole = [p for extra in reversed(short) for p in (0, extra)]
    blocks = F.avg_pool3d(F.pad(fixed, whole, mode="replicate"), _SPACING)[0]
    shape = blocks.shape[1:]
    around = [p for extra in reversed(short) for p in (reach, reach + extra)]
    others = F.avg_pool3d(F.pad(moving, around, mode="replicate"), _SPACING, stride=1)
    steps = torch.arange(-_REACH, _REACH + 1) * _STRIDE
    offsets = torch.cartesian_prod(steps, steps, steps)
    offsets = offsets[offsets.square().sum(1).argsort(stable=True)]  # of equally good ones the shortest is taken
    cost = fixed.new_empty(len(offsets), *shape)
    for number, offset in enumerate((offsets + reach).tolist()):
        k, j, i = (slice(o, o + _SPACING * n, _SPACING) for o, n in zip(offset, shape, strict=True))
        cost[number] = len(_PAIRS) * ((blocks - others[0, :, k, j, i]) ** 2).mean(0)
    offsets = offsets.to(fixed)
    smooth = _smooth(offsets[cost.argmin(0)].movedim(-1, 0)[None])
    for coupling in _COUPLINGS:
        apart = sum((o.view(-1, 1, 1, 1) - s) ** 2 for o, s in zip(offsets.T, smooth[0], strict=True))
        smooth = _smooth(offsets[(cost + coupling * apart).argmin(0)].movedim(-1, 0)[None])
    return smooth


@torch.inference_mode(False)
@torch.enable_grad()
def _refined(fixed: torch.Tensor, moving: torch.Tensor, start: torch.Tensor, iterations: int) -> torch.Tensor:
    """Gradient descent from a displacement in voxels, on descriptors of half the size; returns shares of each axis."""
    per_voxel = 1 / torch.tensor(fixed.shape[2:], device=fixed.device).view(1, 3, 1, 1, 1)
    shape = tuple((n + 1) // 2 for n in fixed.shape[2:])
    fixed, moving = F.adaptive_avg_pool3d(fixed, shape), F.adaptive_avg_pool3d(moving, shape)
    size = [max(n // 2, 2) for n in shape]
    field = F.interpolate(start, size, mode="trilinear", align_corners=False).requires_grad_()
    descent = torch.optim.Adam([field], lr=_RATE)
    for _ in range(iterations):
        smooth = _smooth(field)
        at = _places(shape, smooth * per_voxel)
        unlike = F.mse_loss(F.grid_sample(moving, at, padding_mode="border", align_corners=False), fixed)
        rough = sum(smooth.diff(dim=axis).square().mean() for axis in (2, 3, 4))
        (len(_PAIRS) * unlike + _SMOOTHNESS * rough).backward()
        descent.step()
        descent.zero_grad()
    return (_smooth(field) * per_voxel).detach()


def _places(shape: tuple[int, ...], field: torch.Tensor) -> torch.Tensor:
    """Where to take each voxel of a volume of that shape from, as ``grid_sample`` counts: (1, K, J, I, 3)."""
    straight = F.affine_grid(torch.eye(3, 4, device=field.device)[None], [1, 1, *shape], align_corners=False)
    fine = F.interpolate(field, shape, mode="trilinear", align_corners=False)
    return straight + 2 * fine.flip(1).movedim(1, -1)


def _smooth(x: torch.Tensor) -> torch.Tensor:
    """(1, C, k, j, i) after a Gaussian of one voxel."""
    channels = x.shape[1]
    weight = torch.exp(-0.5 * torch.arange(-3, 4, device=x.device) ** 2)
    weight = weight / weight.sum()
    for axis in range(3):
        size, padding = [1, 1, 1], [0, 0, 0, 0, 0, 0]
        size[axis] = len(weight)
        padding[4 - 2 * axis] = padding[5 - 2 * axis] = len(weight) // 2
        along = weight.view(1, 1, *size).expand(channels, 1, *size)
        x = F.conv3d(F.pad(x, padding, mode="replicate"), along, groups=channels)
    return x
