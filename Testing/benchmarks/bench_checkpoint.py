"""Mean Dice of a checkpoint on generated subjects it has never seen, whole volumes through the TFFS engine.

    python Testing/benchmarks/bench_checkpoint.py [--weights NAME_OR_PATH] [--subjects 24] [--json OUT]

Each subject is a new anatomy: four labelled subjects and one unlabelled one, each with its own deformation, contrast
and noise; one structure is asked for. Tables: by number of labelled cases and insertions, by structure size, by change
of contrast between labelled and unlabelled cases, by family of contrast. "copied" is no network at all: the labelled
masks laid on each other, where at least half of them are. Below: how well the Dice that users are told to expect (and
the mean entropy around the foreground beside it) ranks the subjects, for the largest M and R.
"""

import argparse
import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import spearmanr

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.frames import slices_to_frames
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.intensities import to_display_range
from SSLSegLib.cases.volume import Volume
from SSLSegLib.checkpoint.atlas import draw_anatomy
from SSLSegLib.checkpoint.rendering import FAMILIES, draw_contrast, related_contrast, render
from SSLSegLib.checkpoint.samples import CHANGES
from SSLSegLib.pseudolabels.label import build_pseudo_label
from SSLSegLib.seeds import named_rng
from SSLSegLib.tffs.engine import TffsEngine
from SSLSegLib.tffs.ensemble import ProbabilitySums, joined
from SSLSegLib.tffs.looks import looks, sharpened
from SSLSegLib.tffs.options import TffsOptions
from SSLSegLib.tffs.place import moved_prior
from SSLSegLib.tffs.positions import insertion_positions
from SSLSegLib.tffs.registration import Displacement, registered, registrable
from SSLSegLib.tffs.view import PLANES, View, view_around, view_size
from SSLSegLib.weights.loading import load_sam2

LABELLED = (1, 2, 4)
SMALLEST = 0.005  # share of a slice, on average where the target is; the range the training is for ends at 40 %
SIZES = {"0.5 to 2 % of a slice": (0.005, 0.02), "2 to 8 %": (0.02, 0.08), "8 to 40 %": (0.08, 0.4)}
BAD = 0.75  # Dice, below which a label is to be found by whoever reviews
TARGET = [SegmentClass(value=1, name="target")]
SEED = 20261121  # no training draws from it: training seeds are hashes of other names


def draw_cohort(index: int, *, distinct: bool = False):
    """Images and masks of a structure, (5, K, J, I) each, the last one unlabelled; and what kind of subject it is.

    Args:
        distinct: Every structure has a brightness of its own, as in simpler generators: a tissue says what it is.
    """
    change, family = CHANGES[index % 3], FAMILIES[index // 3 % 3]
    smallest, largest = list(SIZES.values())[(index + index // 3) % 3]  # a Latin square of contrast, family and size
    usable = []
    for attempt in range(1000):
        rng = named_rng(SEED, "benchmark", index, attempt)
        anatomy = draw_anatomy(rng)
        amount = rng.uniform(0.02, 0.11)
        labels = [anatomy.subject(rng, amount=amount).labels for _ in range(max(LABELLED) + 1)]
        for candidate in anatomy.candidates:
            masks = torch.stack([torch.isin(x, torch.tensor(candidate, dtype=torch.uint8)) for x in labels])
            area = masks.flatten(2).float().mean(2)  # share of each slice
            sizes = [float(some[some > 0].mean()) if some.any() else 0.0 for some in area]
            if min(sizes) >= SMALLEST and smallest <= sizes[-1] < largest:
                usable.append(masks)
        if usable:
            break
    masks = usable[rng.integers(len(usable))]
    contrast = draw_contrast(rng, anatomy.tissues, family, distinct=distinct)
    contrasts = [related_contrast(rng, contrast, anatomy.tissues, "same") for _ in (*LABELLED, 0)]
    contrasts.append(related_contrast(rng, contrast, anatomy.tissues, change))
    every = np.arange(labels[0].shape[0])
    images = [render(x, every, c, rng).numpy() for x, c in zip(labels, contrasts, strict=True)]
    area = masks[-1].flatten(1).float().mean(1)
    return images, masks.numpy(), {"change": change, "family": family, "size": float(area[area > 0].mean())}


def segment(
    engine: TffsEngine,
    image_size: int,
    index: int,
    images: Sequence[np.ndarray],
    masks: Sequence[np.ndarray],
    insertions: int,
    planes: Sequence[int],
    displacements: Sequence[Sequence[Displacement]] | None,
) -> np.ndarray:
    """The mean probability of the last image's voxels, from the others and their masks.

    Args:
        displacements: Where each place of the last image may lie in the others; None: nothing is told, frames show all.
    """
    told = displacements is not None
    shape = images[-1].shape[1:]
    encoded, templates = {}, {}
    runs: dict[View, ProbabilitySums] = {}
    if told:
        pairs = zip(displacements, masks, strict=True)
        prior = moved_prior([(found, mask) for some, mask in pairs for found in some], shape)
        likely = [[mask] for mask in masks] + [[prior >= prior.max() / 2]]
        sizes = {plane: view_size(masks, plane) for plane in planes}
        views = {plane: [view_around(some, size, plane) for some in likely] for plane, size in sizes.items()}
    else:
        views = dict.fromkeys(planes, [View()] * len(images))

    def features(case: int, view: View):
        if (case, view) not in encoded:
            encoded[case, view] = engine.encode(slices_to_frames(view.seen(images[case]), image_size))
        return encoded[case, view]

    for some in looks(planes[:insertions], insertions, len(masks), told=told):
        found = sharpened(joined(runs.items(), shape)[0]) if runs else None
        for each in some:
            view = views[each.plane][-1]
            slices, *in_plane = view.size(shape)
            in_plane = tuple(in_plane)
            place = view.seen(prior if found is None else found) if told else None
            if (each.plane, each.labelled) not in templates:
                of_labelled = views[each.plane][each.labelled]
                mask = of_labelled.seen(masks[each.labelled]).copy()
                templates[each.plane, each.labelled] = engine.template(
                    features(each.labelled, of_labelled), mask, in_plane
                )
            template = templates[each.plane, each.labelled]
            at = each.of(insertion_positions(SEED, str(index), str(each.labelled), "target", slices, insertions))
            sums = runs.setdefault(view, ProbabilitySums(slices, in_plane))
            engine.propagate(features(-1, view), template, at, in_plane, sums, place=place)
    return joined(runs.items(), shape)[0]


def evaluate(
    engine: TffsEngine,
    image_size: int,
    index: int,
    insertions: Sequence[int],
    *,
    told: bool,
    planes: Sequence[int] = PLANES,
    numbers: Sequence[int] = LABELLED,
    distinct: bool = False,
) -> dict:
    """Dice of one subject for each number of labelled cases and of insertions.

    Args:
        told: The network is told where the structure lies in the labelled cases and sees frames of that region.
        planes: That insertions take in turn.
        numbers: Of labelled cases, ascending.
    """
    images, masks, row = draw_cohort(index, distinct=distinct)
    truth = masks[-1]

    def display(image: np.ndarray) -> np.ndarray:
        return to_display_range(Volume(image[None].astype(np.float32), Geometry(image.shape, np.eye(4))), "MR")

    def dice(found: np.ndarray) -> float:
        return float(2 * (found & truth).sum() / max(found.sum() + truth.sum(), 1))

    started = time.perf_counter()
    shown = [display(image) for image in images]
    if told:
        *moving, fixed = map(registrable, [*shown[: numbers[-1]], shown[-1]])
        displacements = list(registered(fixed, moving))
    for runs, labelled in itertools.product(insertions, numbers):
        known, some = list(masks[:labelled]), [*shown[:labelled], shown[-1]]
        moved = displacements[:labelled] if told else None
        probability = segment(engine, image_size, index, some, known, runs, planes, moved)
        found = probability > 0.5
        row[f"M{labelled}R{runs}"] = dice(found)
    label = build_pseudo_label("", probability[None], Geometry(truth.shape, np.eye(4)), TARGET, largest_component=False)
    row["expected"], row["entropy"] = label.scores.mean_expected_dice or 0.0, label.scores.mean_entropy
    # Where the subjects lie alike, this is what place alone would give.
    row["copied"] = dice(masks[: numbers[-1]].mean(0) >= 0.5)
    row["seconds"] = round(time.perf_counter() - started, 1)
    row["volume"] = float(found.sum() / truth.sum())
    return row


def show(rows: list[dict], insertions: Sequence[int], labelled: Sequence[int]) -> None:
    """Print the tables."""
    columns = [f"M{m}R{r}" for r in insertions for m in labelled]
    table = Table(
        "subjects",
        "n",
        *columns,
        "copied",
        "volume ratio",
        title="Mean Dice (M labelled cases, R insertions)",
    )

    def add(name: str, some: list[dict]) -> None:
        if some:
            means = [f"{np.mean([row[c] for row in some]):.3f}" for c in (*columns, "copied")]
            table.add_row(name, str(len(some)), *means, f"{np.median([row['volume'] for row in some]):.2f}")

    add("all", rows)
    for name, (low, high) in SIZES.items():
        add(name, [row for row in rows if low <= row["size"] < high])
    for change in CHANGES:
        add(f"contrast {change}", [row for row in rows if row["change"] == change])
    for family in FAMILIES:
        add(f"{family}-like", [row for row in rows if row["family"] == family])
    Console(width=max(Console().width, 140)).print(table)  # ten columns, whatever reads them
    show_ranking(rows, columns[-1])
    seconds, threads = np.mean([row["seconds"] for row in rows]), torch.get_num_threads()
    print(f"{seconds:.1f} s a subject (48 slices, M = {', '.join(map(str, labelled))}, {threads} threads)")


def show_ranking(rows: list[dict], column: str) -> None:
    """How well the worst subjects are found without a reference."""
    real = np.array([row[column] for row in rows])
    expected = np.array([row["expected"] for row in rows])
    print(f"Expected Dice {expected.mean():.3f}, {np.abs(expected - real).mean():.3f} off in the mean")
    for name, sure in (("expected Dice", expected), ("mean entropy", -np.array([row["entropy"] for row in rows]))):
        bad = real < BAD
        pairs = sure[bad][:, None] - sure[~bad]
        area = ((pairs < 0) + 0.5 * (pairs == 0)).mean() if pairs.size else float("nan")
        rank = spearmanr(sure, real).statistic if len(rows) > 2 else float("nan")
        print(f"by {name}: Spearman {rank:.2f}; {bad.sum()} below {BAD} told from the others with an AUC of {area:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="sslseg-small")
    parser.add_argument("--subjects", type=int, default=24)
    parser.add_argument("--insertions", type=int, nargs="+", default=[1, 5], help="R")
    parser.add_argument("--precision", default="exact")
    parser.add_argument("--distinct", action="store_true", help="every structure has a brightness of its own: easy")
    parser.add_argument("--labelled", type=int, nargs="+", default=list(LABELLED), choices=LABELLED, help="M")
    parser.add_argument("--no-place", action="store_true", help="do not tell where the structure lies, show all")
    parser.add_argument("--stored-slices", action="store_true", help="insertions do not take three planes in turn")
    parser.add_argument("--first", type=int, default=0, help="subject to begin with")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    loaded = load_sam2(given.weights)
    engine = TffsEngine(loaded.model, TffsOptions(precision=given.precision))
    told, labelled = loaded.configuration.place_prompts and not given.no_place, sorted(set(given.labelled))
    planes = PLANES if told and not given.stored_slices else PLANES[:1]
    insertions = sorted(set(given.insertions))
    rows = [
        evaluate(
            engine,
            loaded.image_size,
            index,
            insertions,
            told=told,
            planes=planes,
            numbers=labelled,
            distinct=given.distinct,
        )
        for index in track(range(given.first, given.first + given.subjects), "Subjects")
    ]
    if given.json:
        given.json.write_text(json.dumps({"sha256": loaded.sha256, "rows": rows}, indent=1))
    show(rows, insertions, labelled)


if __name__ == "__main__":
    main()
