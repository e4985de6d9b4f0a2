"""Volumes as stacks of slices that views are cut from: bytes on disk, mapped into memory, nothing finer than needed."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.intensities import to_display_range
from SSLSegLib.cases.reading import read_geometry, read_label, read_volume
from SSLSegLib.cases.volume import Volume
from SSLSegLib.errors import CaseError
from SSLSegLib.files import atomic_path, write_json
from SSLSegLib.progress import Progress, silent

__all__ = ["SliceStack", "StackBuilder", "cohort_pixel_mm", "colours", "display_image", "resampled"]

GuideMaps = Callable[[Case, Geometry], np.ndarray]
"""Case and its geometry -> float (classes, K, J, I), a guide's probability of each class."""


@dataclass(frozen=True, eq=False)
class SliceStack:
    """One case.

    Args:
        case_id: Its id.
        image: uint8 (K, rows, columns, 3).
        label: uint8 (K, rows, columns): 0 background, then the cohort's classes counted from 1; None if unknown.
        guide: uint8 (classes, K, rows, columns), probabilities times 255; None without a stored guide.
        pixel: Pixels of a slice per pixel of a view at scale 1, along rows and columns; at most about 1.
    """

    case_id: str
    image: np.ndarray
    label: np.ndarray | None
    guide: np.ndarray | None
    pixel: tuple[float, float]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.image.shape[1], self.image.shape[2]


class StackBuilder:
    """Makes stacks once and finds them again.

    Args:
        cohort: Where the cases come from.
        folder: Where the stacks lie.
        pixel_mm: Size of a view's pixels. Finer slices are brought to it (with antialiasing), coarser ones are kept.
        guide: Of unlabelled cases.
    """

    def __init__(self, cohort: Cohort, folder: Path, pixel_mm: float, guide: GuideMaps | None = None) -> None:
        self.cohort, self.folder, self.pixel_mm, self.guide = cohort, Path(folder), pixel_mm, guide

    def build(self, cases: Sequence[Case], progress: Progress = silent) -> list[SliceStack]:
        """Stacks of cases, with the label of labelled ones; a reference is never read.

        Args:
            cases: Which.
            progress: Gets ``progress`` events.

        Raises:
            CaseError: A file cannot be read, or a guide's maps do not fit.
        """
        stacks = []
        for number, case in enumerate(cases):
            if not self._made(case):
                self._make(case)
            stacks.append(self._open(case))
            progress("progress", stage="Preparing slices", done=number + 1, total=len(cases), case=case.id)
        return stacks

    def _made(self, case: Case) -> bool:
        """Whether all that is needed now lies there: a case may have been prepared in another role."""
        needed = [f"{case.id}.json", f"{case.id}.image.npy"]
        if case.role == "labelled":
            needed.append(f"{case.id}.label.npy")
        elif self.guide is not None:
            needed.append(f"{case.id}.guide.npy")
        return all((self.folder / name).is_file() for name in needed) and self._record(case).get("of") == self._of()

    def _of(self) -> dict[str, Any]:
        """What a stack depends on beside the files of its case: a run that ended before its training may begin anew
        with other options."""
        return {
            "pixel_mm": self.pixel_mm,
            "modality": self.cohort.modality,
            "window": None if self.cohort.window is None else self.cohort.window.model_dump(mode="json"),
            "classes": list(self.cohort.class_values()),
        }

    def _record(self, case: Case) -> dict[str, Any]:
        return json.loads((self.folder / f"{case.id}.json").read_text(encoding="utf-8"))

    def _make(self, case: Case) -> None:
        for what in ("image", "label", "guide"):  # of other options, or of another role
            (self.folder / f"{case.id}.{what}.npy").unlink(missing_ok=True)
        volume = read_volume(self.cohort, case)
        display = to_display_range(volume, self.cohort.modality, self.cohort.window)
        spacing = volume.geometry.spacing[1:]
        shape = _coarser_shape(volume.geometry.in_plane, spacing, self.pixel_mm)
        image = resampled(torch.from_numpy(np.ascontiguousarray(colours(display))), shape)
        self._write(case, "image", image.round().clamp(0, 255).byte().movedim(0, -1).numpy())
        if case.role == "labelled":
            label = read_label(self.cohort, case).array
            index = np.zeros(256, np.uint8)
            for number, value in enumerate(self.cohort.class_values(), start=1):
                index[value] = number
            nearest = F.interpolate(torch.from_numpy(index[label])[:, None], shape, mode="nearest-exact")[:, 0]
            self._write(case, "label", nearest.numpy())
        elif self.guide is not None:
            maps = self.guide(case, volume.geometry)
            expected = (len(self.cohort.classes), *volume.geometry.shape)
            if maps.shape != expected:
                raise CaseError(
                    f"The guide's probabilities have the shape {maps.shape}, expected {expected}.",
                    case_id=case.id,
                    remedy="Use pseudo-labels of this cohort.",
                )
            coarse = resampled(torch.from_numpy(np.ascontiguousarray(maps, np.float32)), shape)
            self._write(case, "guide", (coarse.clamp(0, 1) * 255).round().byte().numpy())
        steps = [
            length * size / new for length, size, new in zip(spacing, volume.geometry.in_plane, shape, strict=True)
        ]
        pixel = [self.pixel_mm / step for step in steps]
        write_json(self.folder / f"{case.id}.json", {"pixel": pixel, "of": self._of()})

    def _write(self, case: Case, what: str, array: np.ndarray) -> None:
        with atomic_path(self.folder / f"{case.id}.{what}.npy") as temporary:
            np.save(temporary, array, allow_pickle=False)

    def _open(self, case: Case) -> SliceStack:
        def mapped(what: str) -> np.ndarray | None:
            path = self.folder / f"{case.id}.{what}.npy"
            return np.load(path, mmap_mode="r", allow_pickle=False) if path.is_file() else None

        pixel = tuple(self._record(case)["pixel"])
        return SliceStack(case.id, mapped("image"), mapped("label"), mapped("guide"), pixel)


def cohort_pixel_mm(cohort: Cohort, cases: Sequence[Case], size: int) -> float:
    """Pixels such that the longer side of the median case fills a view of ``size`` pixels."""
    sides = []
    for case in cases:
        geometry = read_geometry(cohort, case)
        sides.append(max(n * step for n, step in zip(geometry.in_plane, geometry.spacing[1:], strict=True)))
    return float(np.median(sides)) / size


def colours(display: np.ndarray) -> np.ndarray:
    """Channels (C, K, J, I) to red, green and blue (3, K, J, I): one is repeated; of two the third is the mean; of more
    than three each is the mean of a third of them, in their order."""
    if len(display) == 3:
        return display
    if len(display) == 1:
        return np.repeat(display, 3, axis=0)
    if len(display) == 2:
        return np.concatenate([display, display.mean(axis=0, keepdims=True)])
    return np.stack([group.mean(axis=0) for group in np.array_split(display, 3)])


def resampled(channels: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """Slices (C, K, J, I) to other rows and columns, bilinear with antialiasing."""
    if tuple(channels.shape[-2:]) == tuple(shape):
        return channels.float()
    return F.interpolate(channels.float(), tuple(shape), mode="bilinear", antialias=True, align_corners=False)


def display_image(volume: Volume, cohort: Cohort) -> torch.Tensor:
    """Red, green and blue of a volume, float (3, K, J, I) in 0..255."""
    return torch.from_numpy(colours(to_display_range(volume, cohort.modality, cohort.window)))


def _coarser_shape(in_plane: tuple[int, int], spacing: tuple[float, float], pixel_mm: float) -> tuple[int, int]:
    """Rows and columns after bringing what is finer than ``pixel_mm`` to it."""
    rows, columns = (
        size if step >= pixel_mm else max(1, round(size * step / pixel_mm))
        for size, step in zip(in_plane, spacing, strict=True)
    )
    return rows, columns
