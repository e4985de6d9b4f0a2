"""All cases in one picture: Dice, and Dice against what was expected of it."""

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["overview_figure"]


def overview_figure(rows: Sequence[tuple[str, float | None, float | None]]) -> Figure | None:
    """Draw Dice over cases and, where both are known, Dice against the expected Dice.

    Args:
        rows: (case id, mean Dice or None, mean expected Dice or None) of each case.

    Returns:
        None when no case has a Dice.
    """
    scored = sorted((row for row in rows if row[1] is not None), key=_by_dice)
    if not scored:
        return None
    both = [(dice, expected) for _, dice, expected in scored if expected is not None]
    wide = len(both) > 2
    height = max(1.8, 0.2 * len(scored) + 0.9)
    figure = Figure(figsize=(9 if wide else 5.5, min(height, 9)), dpi=110)
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(1, 2 if wide else 1, squeeze=False)[0]
    names, values = [case_id for case_id, _, _ in scored], [dice for _, dice, _ in scored]
    panels[0].hlines(range(len(values)), 0, values, color="0.85", linewidth=1)
    panels[0].plot(values, range(len(values)), "o", color="#1f5f8b", markersize=4, clip_on=False)
    panels[0].axvline(float(np.mean(values)), color="0.5", linewidth=1, linestyle=":")
    panels[0].set_yticks(range(len(names)) if len(names) <= 45 else [], names[:45] if len(names) <= 45 else [])
    panels[0].tick_params(labelsize=7)
    panels[0].set_xlim(0, 1)
    panels[0].set_ylim(-0.6, len(values) - 0.4)
    panels[0].set_xlabel("Dice (dotted: mean)", fontsize=8)
    if wide:
        panels[1].plot(
            [expected for _, expected in both],
            [dice for dice, _ in both],
            "o",
            color="#1f5f8b",
            markersize=4,
            clip_on=False,
        )
        panels[1].plot([0, 1], [0, 1], color="0.5", linewidth=1, linestyle=":")
        panels[1].set_xlabel("Dice expected from the probabilities", fontsize=8)
        panels[1].set_ylabel("Dice", fontsize=8)
        panels[1].set_xlim(0, 1)
        panels[1].set_ylim(0, 1)
        panels[1].tick_params(labelsize=7)
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _by_dice(row: tuple[str, float, float | None]) -> tuple[float, str]:
    return row[1], row[0]
