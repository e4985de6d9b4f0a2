"""Pictures of a case: contours on slices, and the most uncertain slice."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps, patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.evaluation.orientation import SliceOrientation
from SSLSegLib.files import atomic_path
from SSLSegLib.pseudolabels.merging import MAXIMUM_ENTROPY

__all__ = ["CaseView", "case_figure", "choose_slices", "save_figure"]

_REFERENCE_COLOR = "white"
_UNCERTAINTY = colormaps["inferno"]
_PANEL_INCHES = 3.3
_GAP_INCHES = 0.06
_HEADING_INCHES = 0.3
_MARGIN_MM = 20.0
_TOP = {"ha": "center", "va": "top"}


@dataclass(frozen=True, eq=False)
class CaseView:
    """What a picture of a case needs, all on one grid.

    Attributes:
        case_id: The case.
        image: ``(K, J, I)``, one channel; None shows contours on black.
        prediction: ``uint8 (K, J, I)``.
        geometry: Of all.
        reference: ``uint8 (K, J, I)``, if there is one.
        uncertainty: ``(K, J, I)`` in nats, if there is one.
        window: (low, high) intensities for black and white; the 0.5 and 99.5 percentiles by default.
    """

    case_id: str
    image: NDArray | None
    prediction: NDArray[np.uint8]
    geometry: Geometry
    reference: NDArray[np.uint8] | None = None
    uncertainty: NDArray[np.float32] | None = None
    window: tuple[float, float] | None = None


def choose_slices(prediction: NDArray, reference: NDArray | None = None, count: int = 3) -> list[int]:
    """Slices spread evenly through the structure (its inner part: the ends show next to nothing).

    Args:
        prediction: ``(K, J, I)``.
        reference: The same shape, if there is one.
        count: How many at most.

    Returns:
        Ascending slice indices; spread through the whole volume when both masks are empty.
    """
    foreground = prediction != 0 if reference is None else (prediction != 0) | (reference != 0)
    occupied = np.flatnonzero(foreground.any(axis=(1, 2)))
    if occupied.size == 0:
        occupied = np.arange(prediction.shape[0])
    shares = (np.arange(count) + 1) / (count + 1)
    return sorted({int(occupied[round(share * (occupied.size - 1))]) for share in shares})


def case_figure(
    view: CaseView,
    classes: Sequence[SegmentClass],
    title: str = "",
    notes: Sequence[str] = (),
    kind: str = "prediction",
) -> Figure:
    """Draw contours on up to three slices and, with an uncertainty map, the most uncertain slice plain and overlaid.

    Prediction: a line in the class's colour. Reference: a white dashed line. Uncertainty: on a scale from 0 to ln 2
    that is the same in every picture.

    Args:
        view: The case.
        classes: Whose contours to draw.
        title: Above the panels; the case id by default.
        notes: Lines of text for the free place beside the uncertainty, such as scores.
        kind: What the legend calls the prediction.
    """
    orientation = SliceOrientation.of(view.geometry)
    crop = _crop(view, orientation)
    height_mm, width_mm = (
        (side.stop - side.start) * pixel for side, pixel in zip(crop, orientation.pixel_mm, strict=True)
    )
    panel_height = float(np.clip(_PANEL_INCHES * height_mm / width_mm, 1.6, 4.5))
    grid, figure = _panels(1 if view.uncertainty is None else 2, panel_height, legend_lines=1 + len(classes) // 5)

    draw = _SliceDrawer(view, classes, orientation, crop)
    for axes, index in zip(grid[0], choose_slices(view.prediction, view.reference), strict=False):
        draw.slice(axes, index)
        draw.contours(axes, index)
    if view.uncertainty is not None:
        plain, overlaid, beside = grid[1]
        index = int(view.uncertainty.sum(axis=(1, 2), dtype=np.float64).argmax())
        draw.slice(plain, index, "most uncertain: ")
        draw.contours(plain, index)
        draw.slice(overlaid, index, "uncertainty: ")
        draw.uncertainty(overlaid, index)
        _draw_scale(figure, beside.inset_axes((0.0, 0.1, 0.045, 0.8)))
        beside.text(
            0.3,
            0.92,
            "\n".join(notes),
            color="white",
            fontsize=8.5,
            va="top",
            linespacing=1.7,
            transform=beside.transAxes,
        )
    figure.text(0.5, 1 - 0.07 / figure.get_figheight(), title or view.case_id, color="white", fontsize=11, **_TOP)
    _draw_legend(figure, classes, view.reference is not None, kind)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG; the same figure gives the same bytes."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", facecolor=figure.get_facecolor(), metadata={"Software": None})


def _window(image: NDArray | None) -> tuple[float, float]:
    if image is None:
        return 0.0, 1.0
    low, high = np.percentile(image, [0.5, 99.5])
    return float(low), float(high if high > low else low + 1)


def _crop(view: CaseView, orientation: SliceOrientation) -> tuple[slice, slice]:
    """Rows and columns of the picture around the structure, with as much again around it, for context."""
    foreground = view.prediction != 0 if view.reference is None else (view.prediction != 0) | (view.reference != 0)
    footprint = orientation.picture(foreground.any(axis=0))
    sides = []
    for axis, pixel in enumerate(orientation.pixel_mm):
        size = footprint.shape[axis]
        occupied = np.flatnonzero(footprint.any(axis=1 - axis))
        if occupied.size == 0:
            sides.append(slice(0, size))
            continue
        margin = int(max(_MARGIN_MM / pixel, 0.5 * (occupied[-1] - occupied[0] + 1)))
        sides.append(slice(max(int(occupied[0]) - margin, 0), min(int(occupied[-1]) + margin + 1, size)))
    return sides[0], sides[1]


def _panels(rows: int, panel_height: float, legend_lines: int) -> tuple[NDArray, Figure]:
    """A black figure with ``rows`` x 3 axes, placed by hand: the automatic layouts draw everything twice."""
    width = 3 * _PANEL_INCHES + 4 * _GAP_INCHES
    bottom = 0.12 + 0.22 * legend_lines
    height = rows * (panel_height + _HEADING_INCHES) + 0.3 + bottom
    figure = Figure(figsize=(width, height), facecolor="black", dpi=110)
    FigureCanvasAgg(figure)
    grid = np.empty((rows, 3), dtype=object)
    for row in range(rows):
        low = bottom + (rows - 1 - row) * (panel_height + _HEADING_INCHES)
        for column in range(3):
            left = _GAP_INCHES + column * (_PANEL_INCHES + _GAP_INCHES)
            place = (left / width, low / height, _PANEL_INCHES / width, panel_height / height)
            grid[row, column] = figure.add_axes(place)
            grid[row, column].set_axis_off()
    return grid, figure


@dataclass(frozen=True, eq=False)
class _SliceDrawer:
    view: CaseView
    classes: Sequence[SegmentClass]
    orientation: SliceOrientation
    crop: tuple[slice, slice]

    def slice(self, axes: Axes, index: int, heading: str = "") -> None:
        """The image, with its place and the letters of its edges."""
        image = self.view.image
        base = np.zeros(self.view.prediction.shape[1:]) if image is None else image[index]
        low, high = self.view.window or _window(image)
        axes.imshow(
            self._picture(base),
            cmap="gray",
            vmin=low,
            vmax=high,
            aspect=self.orientation.aspect,
            interpolation="bilinear",
        )
        axes.set_title(f"{heading}slice {index} ({self.orientation.position(index)})", color="white", fontsize=9)
        _draw_letters(axes, self.orientation)

    def contours(self, axes: Axes, index: int) -> None:
        """Prediction and reference as lines between voxels."""
        halo = [patheffects.withStroke(linewidth=2.4, foreground="black", alpha=0.6)]
        for segment in self.classes:
            for labels, color, style in (
                (self.view.prediction, _bright(segment), "solid"),
                (self.view.reference, _REFERENCE_COLOR, (0, (3, 2))),
            ):
                mask = None if labels is None else self._picture(labels[index] == segment.value)
                if mask is None or not mask.any():
                    continue
                # A border of background closes the contour at the picture's edge.
                across, down = np.arange(-1, mask.shape[1] + 1), np.arange(-1, mask.shape[0] + 1)
                padded = np.pad(mask.astype(np.float32), 1)
                lines = axes.contour(across, down, padded, [0.5], colors=[color], linewidths=1.3)
                lines.set(linestyle=style, path_effects=halo)
        self._keep_limits(axes)

    def uncertainty(self, axes: Axes, index: int) -> None:
        """The uncertainty over the image; sure voxels stay transparent, so that the anatomy shows."""
        share = np.clip(self._picture(self.view.uncertainty[index]) / MAXIMUM_ENTROPY, 0.0, 1.0)
        overlay = _UNCERTAINTY(share)
        overlay[..., 3] = np.clip(1.6 * share, 0.0, 0.85)
        axes.imshow(overlay, aspect=self.orientation.aspect, interpolation="nearest")
        self._keep_limits(axes)

    def _picture(self, array: NDArray) -> NDArray:
        return self.orientation.picture(array)[self.crop]

    def _keep_limits(self, axes: Axes) -> None:
        axes.set_xlim(-0.5, self.crop[1].stop - self.crop[1].start - 0.5)
        axes.set_ylim(self.crop[0].stop - self.crop[0].start - 0.5, -0.5)


def _draw_scale(figure: Figure, axes: Axes) -> None:
    scale = figure.colorbar(ScalarMappable(Normalize(0, MAXIMUM_ENTROPY), _UNCERTAINTY), cax=axes)
    scale.set_ticks([0, MAXIMUM_ENTROPY / 2, MAXIMUM_ENTROPY], labels=["0\n(sure)", "entropy", "ln 2\n(p = 0.5)"])
    scale.ax.tick_params(colors="white", labelsize=7)
    scale.outline.set_edgecolor("0.5")


def _draw_letters(axes: Axes, orientation: SliceOrientation) -> None:
    for x, y, letter in (
        (0.02, 0.5, orientation.left),
        (0.98, 0.5, orientation.right),
        (0.5, 0.97, orientation.top),
        (0.5, 0.03, orientation.bottom),
    ):
        axes.text(
            x,
            y,
            letter,
            color="#ffd75e",
            fontsize=8,
            transform=axes.transAxes,
            ha={0.02: "left", 0.98: "right"}.get(x, "center"),
            va={0.97: "top", 0.03: "bottom"}.get(y, "center"),
            path_effects=[patheffects.withStroke(linewidth=1.5, foreground="black")],
        )


def _draw_legend(figure: Figure, classes: Sequence[SegmentClass], with_reference: bool, kind: str) -> None:
    lines = [Line2D([], [], color=_bright(each), label=f"{each.name} ({kind})") for each in classes]
    if with_reference:
        lines.append(Line2D([], [], color=_REFERENCE_COLOR, linestyle=(0, (3, 2)), label="reference"))
    figure.legend(
        handles=lines,
        loc="lower center",
        ncols=min(len(lines), 5),
        fontsize=8,
        labelcolor="white",
        frameon=False,
    )


def _bright(segment: SegmentClass) -> tuple[float, float, float]:
    """The class's colour, lifted where it would drown on a dark image."""
    color = np.asarray(segment.color_unit)
    return tuple((color / max(float(color.max()), 1e-6)).tolist()) if color.max() > 0 else (1.0, 0.3, 0.3)
