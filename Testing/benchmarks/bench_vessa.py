"""VESSA: what the language model, the memory and a larger bank bring, and what a guide costs.

    python Testing/benchmarks/bench_vessa.py dice --out FOLDER     stage 1 on phantoms, scored on unseen subjects
    python Testing/benchmarks/bench_vessa.py guided --out FOLDER   stage 2 with and without VESSA and feedback
    python Testing/benchmarks/bench_vessa.py cost                  the cache, and a step with and without it
    python Testing/benchmarks/bench_vessa.py memory                Qwen3-VL 2B and 4B, from their configurations
    python Testing/benchmarks/bench_vessa.py dryrun --language 2B  stage 1 and inference in true size, random weights

dice: a real but tiny Qwen3-VL with random weights beside a SAM2 with ``--weights`` (by default the bundled
checkpoint) is trained on slices of generated abdomens and then segments subjects that it has never seen, from
templates of three other subjects. The ablations are trained anew. "untrained" is the mode without VLM on the same SAM2.
A tiny language model with random weights knows nothing of language or images: these figures say that the machinery
learns, not what Qwen3-VL would bring.

cost: processor seconds of this process, one thread; ratios hold better than seconds on a shared machine.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.cases.phantoms import make_phantom_cohort
from SSLSegLib.cases.reading import read_label
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.evaluation.scores import score_case
from SSLSegLib.files import write_json
from SSLSegLib.unimatch.data import StepBatches
from SSLSegLib.unimatch.options import PRESETS
from SSLSegLib.unimatch.slices import StackBuilder
from SSLSegLib.unimatch.train import Trainer
from SSLSegLib.vessa.cache import build_cache
from SSLSegLib.vessa.configuration import VessaConfiguration, tiny_language
from SSLSegLib.vessa.estimate import estimate_memory, true_size
from SSLSegLib.vessa.features import Sam2Features
from SSLSegLib.vessa.guide import GuidedOptions, make_vessa_guide
from SSLSegLib.vessa.inputs import LiveInputs
from SSLSegLib.vessa.model import build_vessa
from SSLSegLib.vessa.options import TrainingOptions, VessaOptions
from SSLSegLib.vessa.pairs import prepare_data
from SSLSegLib.vessa.saving import LoadedVessa, load_vessa, without_language
from SSLSegLib.vessa.segment import segment_cohort
from SSLSegLib.vessa.slices import CohortSlices
from SSLSegLib.vessa.stage2 import train_guided
from SSLSegLib.vessa.templates import TemplateBank, chosen_slices
from SSLSegLib.vessa.train import StageOne
from SSLSegLib.weights.loading import load_sam2

CLASSES = ("liver", "kidneys", "spleen")
BANKS = (1, 3, 10)
VARIANTS = {"VESSA": {}, "without VLM": {"language": None}, "without memory": {"memory": False}}


def phantoms(folder: Path, seed: int, shape: tuple[int, ...], *, labelled: int = 14, unseen: int = 2) -> Cohort:
    if (folder / "cohort.json").is_file():
        return Cohort.load(folder)
    return make_phantom_cohort(
        folder, seed=seed, labelled=labelled, unlabelled=unseen, test=0, classes=CLASSES, shape=tuple(shape)
    )


def dice(arguments: argparse.Namespace) -> None:
    table: dict[str, dict[int, list[float]]] = {}
    curves = {}
    for seed in arguments.seeds:
        folder = Path(arguments.out) / f"seed_{seed}"
        cohort = phantoms(folder / "cohort", seed, arguments.shape)
        slices = CohortSlices(cohort)
        options = TrainingOptions(
            steps=arguments.steps,
            batch=arguments.batch,
            accumulate=1,
            learning_rate=1e-3,
            sam2_factor=0.3,
            bank_part=0.2,
            validation_part=0.1,
            validation_pairs=32,
            validate_every=max(1, arguments.steps // 3),
            save_every=arguments.steps,
            precision="float32",
            checkpoint_activations=False,
            seed=seed,
        )
        loaded = load_sam2(arguments.weights, "cpu")
        features = Sam2Features(loaded.model, "bench")
        whole = prepare_data(slices, features, options).bank
        untrained = without_language(arguments.weights, "cpu")
        score_banks(table, "untrained, without VLM", cohort, untrained, whole, slices, features, seed)
        for name in arguments.variants:
            sam2 = load_sam2(arguments.weights, "cpu")
            fields = {"language": tiny_language(hidden=64, image_side=96), **VARIANTS[name]}
            model = build_vessa(VessaConfiguration(sam2=sam2.configuration, **fields), sam2=sam2.model, seed=seed)
            own = Sam2Features(sam2.model, "bench")
            trainer = StageOne(
                folder / name.replace(" ", "_"), model, prepare_data(slices, own, options), options, cpu=True
            )
            began = time.process_time()
            trainer.run()
            curve = [json.loads(line) for line in (trainer.folder / "curve.jsonl").read_text().splitlines()]
            third = max(1, len(curve) // 3)
            curves[f"{name}, seed {seed}"] = [
                round(statistics.mean(each["dice"] for each in curve[start : start + third]), 3)
                for start in range(0, third * 3, third)
            ]
            print(f"seed {seed}  {name}: {time.process_time() - began:.0f} s, dice term by thirds", end=" ")
            print(curves[f"{name}, seed {seed}"], flush=True)
            vessa = load_vessa(trainer.folder / "model", "cpu")
            own = Sam2Features(vessa.model.segmenter.sam2, "bench")
            score_banks(table, name, cohort, vessa, whole, slices, own, seed)
    print(f"\n| Dice on unseen subjects | {' | '.join(f'{count} a class' for count in BANKS)} |")
    for name, by_count in table.items():
        row = [f"{statistics.mean(by_count[count]):.3f} ± {spread(by_count[count]):.3f}" for count in BANKS]
        print(f"| {name} | {' | '.join(row)} |")
    write_json(Path(arguments.out) / "dice.json", {"dice": table, "curves": curves, "steps": arguments.steps})
    draw_curves(Path(arguments.out), arguments.seeds, arguments.variants)


def draw_curves(out: Path, seeds: list[int], variants: list[str], over: int = 15) -> None:
    """``curves.png``: the terms of equation 3 (Dice) and 2 (text) over the steps, a line a seed, as moving means."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for axes, term in zip(figure.subplots(1, 2), ("dice", "text"), strict=True):
        for colour, name in enumerate(variants):
            for number, seed in enumerate(seeds):
                lines = (out / f"seed_{seed}" / name.replace(" ", "_") / "curve.jsonl").read_text().splitlines()
                values = [each[term] for each in map(json.loads, lines) if each.get(term) is not None]
                if len(values) < over or not any(values):
                    continue  # without a language model there is no text to learn
                mean = np.convolve(values, np.full(over, 1 / over), "valid")
                label = name if number == 0 else None
                axes.plot(np.arange(over, len(values) + 1), mean, color=f"C{colour}", lw=1.2, alpha=0.8, label=label)
        axes.set_xlabel("step")
        axes.set_title({"dice": "1 - Dice of the mask", "text": "text (mean over tokens)"}[term], fontsize=10)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(out / "curves.png", dpi=110)


def score_banks(table, name, cohort, vessa, whole, slices, features, seed) -> None:
    """Dice of the unseen subjects from banks of several sizes, all of the same bank subjects."""
    subjects = {each.subject for each in whole.templates}
    inside = [index for index, entry in enumerate(slices.entries) if entry.subject in subjects]
    for count in BANKS:
        of_bank = _Only(slices, inside)
        bank = TemplateBank.of(of_bank, features, chosen_slices(of_bank, count))
        found = []
        segment_cohort(cohort, vessa, bank, VessaOptions(), seed=seed, sink=found.append, features=features)
        score = mean_dice(cohort, found)
        table.setdefault(name, {}).setdefault(count, []).append(score)
        print(f"seed {seed}  {name}, {len(bank)} templates: Dice {score:.3f}", flush=True)


class _Only:
    """Some of the slices, in an order of their own."""

    def __init__(self, slices: CohortSlices, indices: list[int]) -> None:
        self.slices, self.indices = slices, indices
        self.entries = [slices.entries[index] for index in indices]

    def picture(self, index: int) -> np.ndarray:
        return self.slices.picture(self.indices[index])

    def mask(self, index: int, target: str) -> np.ndarray:
        return self.slices.mask(self.indices[index], target)


def mean_dice(cohort: Cohort, labels) -> float:
    scores = []
    for label in labels:
        truth = read_label(cohort, cohort.case(label.case_id), "reference")
        scores.append(
            score_case(label.case_id, LabelMap(label.mask, label.geometry), truth, cohort.classes).mean("dice")
        )
    return statistics.mean(scores)


def spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else float("nan")


def guided(arguments: argparse.Namespace) -> None:
    """UniMatch v2 alone, with SAM2, with VESSA, and without its feedback; scores of the unlabelled cases' labels."""
    from SSLSegLib.unimatch.model import load_model
    from SSLSegLib.unimatch.options import UniMatchOptions
    from SSLSegLib.unimatch.predict import segment
    from SSLSegLib.unimatch.run import train

    table: dict[str, list[float]] = {}
    for seed in arguments.seeds:
        folder = Path(arguments.out) / f"seed_{seed}"
        cohort = phantoms(folder / "cohort", seed, arguments.shape, labelled=2, unseen=6)
        common = {"seed": seed, "steps": arguments.steps, "save_every": 10_000}
        for name in ("UniMatch v2", "with SAM2", "with VESSA", "with VESSA, without feedback"):
            where = folder / name.replace(" ", "_").replace(",", "")
            if name == "UniMatch v2":
                done = train(cohort, where, UniMatchOptions.of("quick", **common), device="cpu")
            elif name == "with SAM2":
                options = UniMatchOptions.of("quick", guide="sam2", **common)
                done = train(cohort, where, options, sam2=arguments.weights, device="cpu")
            else:
                vessa = _model(arguments)
                features = Sam2Features(vessa.model.segmenter.sam2, "bench")
                bank = TemplateBank.of(CohortSlices(cohort), features)
                options = GuidedOptions.of("quick", feedback="without" not in name, **common)
                done = train_guided(cohort, where, options, vessa, bank, features)
            model = load_model(done.model, "cpu")
            score = mean_dice(cohort, [segment(model, cohort, case) for case in cohort.unlabelled])
            table.setdefault(name, []).append(score)
            print(f"seed {seed}  {name}: Dice {score:.3f}", flush=True)
        vessa = _model(arguments)
        features, found = Sam2Features(vessa.model.segmenter.sam2, "bench"), []
        bank = TemplateBank.of(CohortSlices(cohort), features)
        segment_cohort(cohort, vessa, bank, VessaOptions(), seed=seed, sink=found.append, features=features)
        table.setdefault("VESSA alone", []).append(mean_dice(cohort, found))
    for name, values in table.items():
        print(f"| {name} | {statistics.mean(values):.3f} ± {spread(values):.3f} |")


def _model(arguments: argparse.Namespace) -> LoadedVessa:
    return load_vessa(arguments.model, "cpu") if arguments.model else without_language(arguments.weights, "cpu")


def cost(arguments: argparse.Namespace) -> None:
    """Building the cache, and steps of UniMatch v2 alone, guided from the cache, and guided anew each time."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cohort = phantoms(folder / "cohort", 1, arguments.shape, labelled=2, unseen=2)

        def fresh() -> tuple[LoadedVessa, TemplateBank, Sam2Features]:
            sam2 = load_sam2(arguments.weights, "cpu")
            configuration = VessaConfiguration(
                sam2=sam2.configuration, language=tiny_language(hidden=64, image_side=96)
            )
            vessa = LoadedVessa(
                build_vessa(configuration, sam2=sam2.model), "bench", "0" * 64, torch.device("cpu"), "bench"
            )
            features = Sam2Features(sam2.model, "bench")
            return vessa, TemplateBank.of(CohortSlices(cohort), features), features

        vessa, bank, features = fresh()
        live = LiveInputs(cohort, vessa, bank, features, VessaOptions())
        slices = sum(live.slices(case) for case in range(len(cohort.unlabelled)))
        began = time.process_time()
        build_cache(live, folder / "cache")
        took = time.process_time() - began
        size = sum(path.stat().st_size for path in (folder / "cache").glob("*.bin"))
        side = vessa.model.segmenter.side
        print(f"cache: {took / slices:.2f} s and {size / slices / 2**20:.2f} MiB a slice of {len(CLASSES)} classes x 3")
        print(f"templates, SAM2 at {side} px, tiny Qwen3-VL ({slices} slices)")
        preset = PRESETS["quick"]
        builder = StackBuilder(cohort, folder / "slices", 2.5)
        stacks = builder.build(cohort.labelled), builder.build(cohort.unlabelled)
        medians = {}
        for name in ("alone", "cached", "cached, with feedback", "anew", "anew, with feedback"):
            start = 0.0 if "feedback" in name else 1.0
            options = GuidedOptions.of("quick", steps=1000, report_every=1000, save_every=10_000, batch=preset["batch"])
            guide = None
            if name != "alone":
                vessa, bank, features = fresh()
                prompting = options.prompting.model_copy(update={"start": start})
                guide = make_vessa_guide(
                    *(cohort, vessa, bank, features, folder / "cache"), prompting=prompting, cached="cached" in name
                )
            trainer = Trainer(folder / name, StepBatches(*stacks, options), len(CLASSES) + 1, options, guide)
            trainer.student.train()
            times = []
            for step in range(arguments.steps + 2):
                batch = trainer.batches[step]
                began = time.process_time()
                trainer.one_step(batch)
                times.append(time.process_time() - began)
            medians[name] = statistics.median(times[2:])
            over = medians[name] / medians["alone"] - 1
            print(f"step {name:22s} {medians[name]:.3f} s (median of {arguments.steps}), {over:+.0%}", flush=True)


def memory(arguments: argparse.Namespace) -> None:
    """Estimates; nothing is allocated."""
    print("| Qwen3-VL | parameters | trained (LoRA) | weights bf16 | training, batch 1 / 2 | inference |")
    for name in ("2B", "4B"):
        one, two = (estimate_memory(true_size(name), batch=batch) for batch in (1, 2))
        print(
            f"| {name} | {one.parameters / 1e9:.2f} G | {one.trained / 1e6:.0f} M | {one.weights:.1f} GB | "
            f"{one.training:.1f} / {two.training:.1f} GB | {one.inference:.1f} GB |"
        )


def dryrun(arguments: argparse.Namespace) -> None:
    """Measured: see ``vessa_dryrun.py``."""
    import vessa_dryrun

    vessa_dryrun.dryrun(arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("dice", "guided", "cost", "memory", "dryrun"):
        each = commands.add_parser(name)
        each.add_argument("--weights", default="sslseg-small", help="SAM2: name in the catalogue or file.")
        each.add_argument("--shape", type=int, nargs=3, default=(16, 80, 96))
        if name in ("dice", "guided"):
            each.add_argument("--out", required=True)
            each.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
        if name == "dice":
            each.add_argument("--batch", type=int, default=4)
            each.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
        if name == "guided":
            each.add_argument("--model", help="Folder of a trained VESSA; without it, the mode without VLM.")
        if name == "dryrun":
            each.add_argument("--language", choices=["tiny", "2B", "4B"], default="2B")
            each.add_argument("--layers", type=int, help="Fewer layers of the language model, for a quick look.")
            each.add_argument("--updates", type=int, default=1)
            each.add_argument("--slices", type=int, default=2)
        if name not in ("memory", "dryrun"):
            each.add_argument("--steps", type=int, default={"dice": 150, "guided": 400, "cost": 5}[name])
    arguments = parser.parse_args()
    run = {"dice": dice, "guided": guided, "cost": cost, "memory": memory, "dryrun": dryrun}
    run[arguments.command](arguments)


if __name__ == "__main__":
    main()
