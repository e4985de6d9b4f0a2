"""Deformable registration of labelled volumes to an unlabelled one, whatever their contrast. Not in the paper.

Self-similarity descriptors (MIND-SSC, Heinrich et al., MICCAI 2013) say how a neighbourhood is built and not how bright
it is. Of all ways to lay one volume on the other as a whole the best is taken (scans need not show one field of view),
with the axes as they are and once more turned and stretched. From each of these beginnings a search over displacements
of a coarse grid, made smooth by convex coupling (Heinrich et al., MICCAI 2014), finds about where everything lies;
gradient descent on finer grids, then on finer descriptors, does the rest (as ConvexAdam, Siebert et al., 2021). About
five seconds a pair on one core, where mutual information with B-splines takes minutes.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from .side_by_side import side_by_side

__all__ = [
    "FINE_SIZE",
    "ITERATIONS",
    "SIZE",
    "Displacement",
    "Registrable",
    "registered",
    "registered_at_once",
    "registrable",
    "registration_device",
    "size_seen",
]

SIZE = (48, 64, 64)
"""Volumes are looked at with at most this many voxels along (K, J, I)."""
ITERATIONS = 60
"""Of gradient descent."""
FINE_SIZE = (48, 96, 96)
"""With so many the last of the descent looks, where volumes have them."""
_AT_LAST = 2 / 3  # of ``ITERATIONS``, on these
_SPACING = 4  # voxels from one point of the coarse grid to the next
_REACH = 4  # steps of two voxels that the search looks to each side
_STRIDE = 2
_OVERLAP = 0.3  # of the smaller volume, at least, however they are laid on each other
_NEARBY = 3.0  # voxels: how far around a voxel (a deviation) volumes are to be alike for their masks to count
_COUPLINGS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_SMOOTHNESS = 0.32  # against the square of how much a displacement changes from voxel to voxel
_RATE = 1.0
_QUIET = 0.05  # of a volume's voxels, at least, show nothing but noise
_EVERY = 7  # voxels one is looked at to tell
_TURNING = ((4, 40, 0.02), (2, 15, 0.01))  # voxels in one that the axes are turned by, steps and their length
_SHORTEST = 8  # voxels along each axis of volumes that are worth turning

_NEIGHBOURS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (1, 0, 0), (0, 1, 0), (0, 0, 1))
_PAIRS = tuple((a, b) for a in range(6) for b in range(a) if a - b != 3)  # those a right angle apart


class Registrable:
    """A volume made ready: descriptors float32 (1, 12 x channels, k, j, i), and how long its voxels are then (mm).

    Args:
        fine: Descriptors of the same on a finer grid; None where the volume has no more to show.
    """

    def __init__(self, descriptors: torch.Tensor, spacing: tuple[float, ...], fine: torch.Tensor | None = None) -> None:
        self.descriptors, self.spacing = descriptors, spacing
        self.fine = descriptors if fine is None else fine

    def size_of(self, extents: Sequence[float]) -> tuple[int, int, int]:
        """Voxels that a volume of these extents (mm along K, J, I) is to have beside this one: of the same length."""
        pairs = zip(extents, self.spacing, SIZE, strict=True)
        return tuple(min(max(round(extent / length), 1), 2 * most) for extent, length, most in pairs)

    def displacements(self, moving: "Registrable", *, iterations: int = ITERATIONS) -> "list[Displacement]":
        """Where each place of this volume lies in another, from two beginnings: each may miss what the other finds.

        Args:
            moving: Another volume with voxels of the same length (:meth:`size_of`).
            iterations: Of gradient descent.

        Returns:
            One with the axes as they are and one with the axes turned; of volumes too thin to turn the first alone.
        """
        shape, other = self.descriptors.shape[2:], moving.descriptors.shape[2:]
        laid = [_straight(self.descriptors, moving.descriptors)]
        if min(*shape, *other) >= _SHORTEST:
            laid.append(_turned(self.descriptors, moving.descriptors, laid[0]))
        return [self._from(each, moving, iterations) for each in laid]

    def displacement(self, moving: "Registrable", *, iterations: int = ITERATIONS) -> "Displacement":
        """The first of :meth:`displacements` alone."""
        return self._from(_straight(self.descriptors, moving.descriptors), moving, iterations)

    def _from(self, laid: torch.Tensor, moving: "Registrable", iterations: int) -> "Displacement":
        fixed, shape, other = self.descriptors, self.descriptors.shape[2:], moving.descriptors.shape[2:]
        how = shape, laid, other
        still = fixed.new_zeros(1, 3, 1, 1, 1)
        beside = _seen_at(_places(shape, still, *how), moving.descriptors)
        voxels = _refined(fixed, moving.descriptors, _searched(fixed, beside), how, iterations)
        if self.fine is not fixed:
            voxels = _refined(self.fine, moving.fine, voxels, how, round(_AT_LAST * iterations))
        moved = _seen_at(_places(shape, voxels, *how), moving.descriptors)
        unlike = _smooth((moved - fixed).square().mean(1, keepdim=True), _NEARBY)
        return Displacement(voxels, shape, laid, other, unlike)


class Displacement:
    """From each place of a fixed volume to its place in a moving one.

    Args:
        voxels: float32 (1, 3, k, j, i), by how many voxels places are displaced, besides ``laid``.
        fixed, moving: Voxels of both volumes along each axis, all of one length.
        laid: float32 (3, 4), how the volumes lie as a whole: from places in the fixed one to places in the moving one.
        unlike: float32 (1, 1, k, j, i), how much their descriptors still differ around each voxel of the fixed one.
    """

    def __init__(
        self,
        voxels: torch.Tensor,
        fixed: Sequence[int],
        laid: torch.Tensor,
        moving: Sequence[int],
        unlike: torch.Tensor,
    ) -> None:
        self.voxels, self.fixed, self.laid, self.moving = voxels, tuple(fixed), laid, tuple(moving)
        self.unlike = unlike

    def moved(self, volume: np.ndarray | torch.Tensor, shape: Sequence[int], *, nearest: bool = False) -> torch.Tensor:
        """What the moving volume shows at each voxel of the fixed one; zero beyond its end.

        Args:
            volume: (K, J, I), any size, in the axes of the volume that was registered.
            shape: (K, J, I) of the fixed volume.
            nearest: Take values as they are, and beyond the end the last: for label maps.

        Returns:
            float32 of that shape.
        """
        volume = torch.as_tensor(np.ascontiguousarray(volume)).to(self.voxels.device, torch.float32)
        at = _places(tuple(shape), self.voxels, self.fixed, self.laid, self.moving)
        mode, beyond = ("nearest", "border") if nearest else ("bilinear", "zeros")
        return F.grid_sample(volume[None, None], at, mode=mode, padding_mode=beyond, align_corners=False)[0, 0]


def registrable(
    image: np.ndarray | torch.Tensor,
    size: Sequence[int] | None = None,
    *,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    device: torch.device | str = "cpu",
) -> Registrable:
    """A volume as registration sees it.

    Args:
        image: (K, J, I) or (C, K, J, I), display range or any other.
        size: Voxels to look at it with (:func:`size_seen`, :meth:`Registrable.size_of`); default: the former.
        spacing: Of the image, mm along K, J, I.
        device: Where to compute.
    """
    image = torch.as_tensor(np.ascontiguousarray(image)).to(device, torch.float32)
    shape = image.shape[-3:]
    size = tuple(size or size_seen(shape, spacing))

    def described(size: tuple[int, ...]) -> torch.Tensor:
        small = F.interpolate(image.view(-1, 1, *shape), tuple(map(min, shape, size)), mode="area")
        small = F.interpolate(small, size, mode="trilinear", align_corners=False)
        return torch.cat([_descriptors(one[None]) for one in small], 1)

    each = zip(shape, size, FINE_SIZE, SIZE, strict=True)
    fine = tuple(max(m, min(round(m * finer / most), n)) for n, m, finer, most in each)
    lengths = tuple(length * n / m for length, n, m in zip(spacing, shape, size, strict=True))
    return Registrable(described(size), lengths, None if fine == size else described(fine))


def registered(fixed: Registrable, moving: Sequence[Registrable]) -> Iterator[list[Displacement]]:
    """:meth:`Registrable.displacements` of each, in their order, as many at once as the device has room for."""
    with side_by_side(min(registered_at_once(fixed.descriptors.device), len(moving))) as mapped:
        yield from mapped(fixed.displacements, moving)


def registered_at_once(device: torch.device) -> int:
    """How many pairs of volumes are registered side by side: one on each thread of a CPU, on a GPU one by one."""
    return torch.get_num_threads() if device.type == "cpu" else 1


def size_seen(shape: Sequence[int], spacing: Sequence[float]) -> tuple[int, int, int]:
    """How many voxels a volume is looked at with: cubes as long as its shortest spacing, at most ``SIZE`` of them.

    Thick slices are interpolated: neighbours that lie far apart describe nothing.
    """
    pairs = zip(shape, spacing, SIZE, strict=True)
    return tuple(min(max(n, round(n * length / min(spacing))), most) for n, length, most in pairs)


def registration_device(device: torch.device) -> torch.device:
    """Where volumes are registered when networks run on ``device``: Apple's GPUs lack the sampling of volumes."""
    return device if device.type == "cuda" else torch.device("cpu")


def _descriptors(image: torch.Tensor) -> torch.Tensor:
    """MIND-SSC of (1, 1, k, j, i): how unlike neighbouring patches are, relative to how unlike they are in the mean.

    To that mean what noise makes of it is added, by where patches are least unlike: where there is nothing but noise
    little is described, and volumes are laid on each other by their structures.
    """
    shape = image.shape[2:]
    padded = F.pad(image, [1] * 6, mode="replicate")

    def shifted(offset: tuple[int, int, int]) -> torch.Tensor:
        k, j, i = (slice(1 + o, 1 + o + n) for o, n in zip(offset, shape, strict=True))
        return padded[:, :, k, j, i]

    neighbours = [shifted(offset) for offset in _NEIGHBOURS]
    unlike = _smooth(torch.cat([(neighbours[a] - neighbours[b]) ** 2 for a, b in _PAIRS], 1))
    unlike = unlike - unlike.amin(1, keepdim=True)
    scale = unlike.mean(1, keepdim=True)
    some = scale.flatten()[::_EVERY]
    some = some[some > 0]  # not where there is nothing at all
    noise = 2 * torch.quantile(some, _QUIET) if len(some) else scale.new_ones(())
    return torch.exp(-unlike / (scale + noise).clamp(min=1e-12))


def _straight(fixed: torch.Tensor, moving: torch.Tensor) -> torch.Tensor:
    """How one volume lies best on the other with its axes as they are, (3, 4)."""
    shift = torch.tensor(_shift(fixed, moving))
    return torch.cat([torch.eye(3), shift.view(3, 1)], 1).to(fixed)


def _shift(fixed: torch.Tensor, moving: torch.Tensor) -> tuple[int, int, int]:
    """At which voxel of a moving volume a fixed one begins: where they overlap most and differ least.

    What does not overlap counts as if it differed as volumes do in the mean that are laid on each other anyhow.
    """
    fixed, moving = (_halved(x)[0] for x in (fixed, moving))
    sizes, other = fixed.shape[1:], moving.shape[1:]
    padded = [n + m - 1 for n, m in zip(sizes, other, strict=True)]

    def transformed(x: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfftn(x, padded, dim=(-3, -2, -1))

    def correlated(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
        return torch.fft.irfftn((one.conj() * two).sum(0), padded)

    here, there = torch.ones_like(fixed[:1]), torch.ones_like(moving[:1])
    of_here, of_there = transformed(here), transformed(there)
    overlap = correlated(of_here, of_there)
    squares = correlated(transformed((fixed**2).sum(0, keepdim=True)), of_there)
    squares = squares + correlated(of_here, transformed((moving**2).sum(0, keepdim=True)))
    unlike = (squares - 2 * correlated(transformed(fixed), transformed(moving))) / overlap.clamp(min=1)
    share = overlap / min(here.numel(), there.numel())
    usual = unlike[share > _OVERLAP].mean() + 1e-3 * len(fixed)  # where all is alike, too, the largest overlap wins
    alike = torch.where(share > _OVERLAP, share * (usual - unlike), -torch.inf)
    best = np.unravel_index(int(alike.argmax()), padded)
    return tuple(2 * int(b if b < m else b - n) for b, m, n in zip(best, other, padded, strict=True))


def _halved(x: torch.Tensor) -> torch.Tensor:
    """(1, C, k, j, i) in means of two voxels along each axis; beyond an odd end it goes on as there."""
    odd = [p for n in reversed(x.shape[2:]) for p in (0, n % 2)]
    return F.avg_pool3d(F.pad(x, odd, mode="replicate"), 2)


@torch.inference_mode(False)
@torch.enable_grad()
def _turned(fixed: torch.Tensor, moving: torch.Tensor, straight: torch.Tensor) -> torch.Tensor:
    """How one volume lies on the other with its axes turned, stretched and moved, by gradient descent on coarse grids.

    What does not overlap counts as unlike as volumes are before. Arguments and result as ``laid`` of
    :class:`Displacement` has it.
    """
    fixed, moving, straight = fixed.clone(), moving.clone(), straight.clone()  # usable in what is to be derived
    shape, other = fixed.shape[2:], moving.shape[2:]
    middle = torch.tensor(shape).to(fixed) / 2
    reach = middle.mean()
    still = fixed.new_zeros(1, 3, 1, 1, 1)
    turn = torch.zeros_like(straight[:, :3]).requires_grad_()
    move = torch.zeros_like(middle).requires_grad_()

    def laid() -> torch.Tensor:
        axes = straight[:, :3] + turn
        return torch.cat([axes, (straight[:, 3] + reach * move - turn @ middle).view(3, 1)], 1)

    for coarser, steps, rate in _TURNING:
        small, beside = (
            _smooth(F.adaptive_avg_pool3d(x, [max(n // coarser, 1) for n in x.shape[2:]])) for x in (fixed, moving)
        )
        descent = torch.optim.Adam([turn, move], lr=rate)
        usual = None
        for _ in range(steps):
            at = _places(tuple(small.shape[2:]), still, shape, laid(), other)
            unlike = (_seen_at(at, beside) - small).square().mean(1)
            overlap = (at.detach().abs() <= 1).all(-1)
            usual = unlike.detach().mean() if usual is None else usual
            torch.where(overlap, unlike, usual).mean().backward()
            descent.step()
            descent.zero_grad()
    return laid().detach()


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
    offsets = offsets[(2 * offsets.abs() <= torch.tensor(fixed.shape[2:])).all(1)]  # of few slices half, at most
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
def _refined(
    fixed: torch.Tensor,
    moving: torch.Tensor,
    start: torch.Tensor,
    how: tuple[Sequence[int], torch.Tensor, Sequence[int]],
    iterations: int,
) -> torch.Tensor:
    """Gradient descent from a displacement, on descriptors of half the size.

    Args:
        fixed, moving: Descriptors, of any size each.
        start: (1, 3, k, j, i) in the voxels of ``how``, as the result is.
        how: How one volume lies on the other: ``fixed``, ``laid`` and ``moving`` of :class:`Displacement`.
    """
    fixed, moving = (F.adaptive_avg_pool3d(x, [(n + 1) // 2 for n in x.shape[2:]]) for x in (fixed, moving))
    shape = tuple(fixed.shape[2:])
    size = [max(n // 2, 2) for n in shape]
    points = [n / whole for n, whole in zip(size, how[0], strict=True)]  # in a voxel
    field = F.interpolate(start, size, mode="trilinear", align_corners=False).requires_grad_()
    descent = torch.optim.Adam([field], lr=_RATE)
    for _ in range(iterations):
        smooth = _smooth(field)
        at = _places(shape, smooth, *how)
        unlike = F.mse_loss(_seen_at(at, moving), fixed)
        rough = sum((smooth.diff(dim=2 + axis) * per).square().mean() for axis, per in enumerate(points))
        (len(_PAIRS) * unlike + _SMOOTHNESS * rough).backward()
        descent.step()
        descent.zero_grad()
    return _smooth(field).detach()


def _places(
    shape: tuple[int, ...], voxels: torch.Tensor, fixed: Sequence[int], laid: torch.Tensor, moving: Sequence[int]
) -> torch.Tensor:
    """Where to take each voxel of a volume of that shape from, as ``grid_sample`` counts: (1, K, J, I, 3).

    The other arguments as :class:`Displacement` has them.
    """
    fine = F.interpolate(voxels, shape, mode="trilinear", align_corners=False)[0].movedim(0, -1)
    axes = [(torch.arange(n, device=voxels.device) + 0.5) * whole / n for n, whole in zip(shape, fixed, strict=True)]
    there = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1) @ laid[:, :3].mT + laid[:, 3]
    ends = torch.tensor(moving, device=voxels.device)
    return (2 * (there + fine) / ends - 1).flip(-1)[None]


def _seen_at(places: torch.Tensor, volume: torch.Tensor) -> torch.Tensor:
    """What (1, C, k, j, i) shows at :func:`_places`; beyond its end it goes on as there."""
    return F.grid_sample(volume, places, padding_mode="border", align_corners=False)


def _smooth(x: torch.Tensor, deviation: float = 1.0) -> torch.Tensor:
    """(1, C, k, j, i) after a Gaussian of so many voxels, cut off at three of its standard deviations."""
    channels, reach = x.shape[1], round(3 * deviation)
    weight = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=x.device) / deviation) ** 2)
    weight = weight / weight.sum()
    for axis in range(3):
        size, padding = [1, 1, 1], [0, 0, 0, 0, 0, 0]
        size[axis] = len(weight)
        padding[4 - 2 * axis] = padding[5 - 2 * axis] = len(weight) // 2
        along = weight.view(1, 1, *size).expand(channels, 1, *size)
        x = F.conv3d(F.pad(x, padding, mode="replicate"), along, groups=channels)
    return x
