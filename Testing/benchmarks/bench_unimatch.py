"""UniMatch v2: what unlabelled cases and a guide bring, and the time of a step.

    python Testing/benchmarks/bench_unimatch.py speed                  a step against the official way of doing it
    python Testing/benchmarks/bench_unimatch.py speed --network small --size 518 --batch 4 --device cuda
    python Testing/benchmarks/bench_unimatch.py dice --out FOLDER      phantoms, 2 labelled + 12 unlabelled, 3 classes
    python Testing/benchmarks/bench_unimatch.py dice --out FOLDER --guide-job SEED=JOB ...
    python Testing/benchmarks/bench_unimatch.py dice --out FOLDER --job JOB --seeds 1    the cohort of a job, real data

speed: the official way is separate passes for labelled and strong images, no autocast, attention with its matrix
written out (what the official code does without xformers), each projection of the decoder behind its upsampling,
parameters averaged one by one, AdamW unfused. Both start from the same weights and see the same batches; the losses of
all steps are compared before the times are. CPU times are of this process (``process_time``), so that other work on
the machine counts little; GPU times are of the wall clock between synchronisations.

dice: the network is trained from scratch (preset quick), once per seed; the seed names the phantoms as well. The guide
is TFFS with ``--weights`` (by default the bundled checkpoint), or jobs made before. Scores are of unseen test cases,
mean over classes and cases; the table gives mean and spread over seeds. Run again to resume.
"""

import argparse
import copy
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
import torch.nn.functional as F

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.cases.phantoms import make_phantom_cohort
from SSLSegLib.cases.reading import read_label
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.evaluation.scores import score_case
from SSLSegLib.files import write_json
from SSLSegLib.seeds import named_seed
from SSLSegLib.unimatch.configuration import NETWORKS
from SSLSegLib.unimatch.data import Batch
from SSLSegLib.unimatch.losses import IGNORE, dice_loss
from SSLSegLib.unimatch.network import Fusion, SegmentationNetwork, complementary_masks
from SSLSegLib.unimatch.options import UniMatchOptions
from SSLSegLib.unimatch.schedules import ema_ratio, poly, update_teacher
from SSLSegLib.unimatch.step import step_losses
from SSLSegLib.unimatch.views import draw_cutmix_box, normalise

CLASSES = 4
VARIANTS: dict[str, dict[str, str]] = {
    "supervised": {"method": "supervised"},
    "unimatch": {},
    "unimatch+tffs": {"guide": "tffs"},
    "upper-bound": {"method": "upper-bound"},
    "mean-teacher": {"method": "mean-teacher"},
}


class PlainFusion(Fusion):
    """The order of the official decoder: first upsample, then project."""

    def forward(self, path, finer, size):
        if finer is not None:
            path = path + self.side(finer)
        return self.out(F.interpolate(self.main(path), tuple(size), mode="bilinear", align_corners=True))


class OfficialWay:
    """A step as the official training writes it."""

    def __init__(self, network: SegmentationNetwork, options: UniMatchOptions) -> None:
        self.student, self.options = copy.deepcopy(network), options
        self.student.encoder.set_attn_implementation("eager")
        for fusion in self.student.decoder.fusions:
            fusion.__class__ = PlainFusion
        self.teacher = copy.deepcopy(self.student).eval().requires_grad_(False)
        self.optimizer = _optimizer(self.student, options, fused=False)

    def step(self, batch: Batch, number: int) -> float:
        options = self.options
        with torch.no_grad():
            weak = self.teacher(normalise(batch.weak))
            confidence, label = weak.softmax(dim=1).max(dim=1)
        mixed = []
        for strong, box in zip(batch.strong, batch.boxes, strict=True):
            image = normalise(strong)
            wide = box.unsqueeze(1).expand(image.shape)
            image[wide] = image.flip(0)[wide]
            maps = [each.clone() for each in (label, confidence, batch.ignore)]
            for each, source in zip(maps, (label, confidence, batch.ignore), strict=True):
                each[box] = source.flip(0)[box]
            mixed.append((image, *maps))
        labelled = self.student(normalise(batch.images))
        draw = torch.Generator().manual_seed(named_seed(options.seed, "dropout", number, 0))
        masks = complementary_masks(len(batch.weak), options.network.hidden, draw)
        images = torch.cat([image for image, *_ in mixed])
        strong = self.student(images, torch.cat(masks).to(images.device)).chunk(2)
        supervised = options.ce_weight * F.cross_entropy(labelled, batch.labels, ignore_index=IGNORE)
        supervised = supervised + options.dice_weight * dice_loss(labelled, batch.labels)
        unsupervised = 0
        for logits, (_, y, sure, outside) in zip(strong, mixed, strict=True):
            loss = F.cross_entropy(logits, y, reduction="none") * ((sure >= options.threshold) & ~outside)
            unsupervised = unsupervised + loss.sum() / (~outside).sum().item()
        loss = (supervised + unsupervised / 2.0) / 2.0
        self.optimizer.zero_grad()
        loss.backward()
        _set_rates(self.optimizer, options, number)
        self.optimizer.step()
        said = loss.item(), supervised.item(), unsupervised.item()
        ratio = min(1 - 1 / (number + 1), options.ema)
        for ours, theirs in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            ours.copy_(ours * ratio + theirs.detach() * (1 - ratio))
        return said[0]


class OurWay:
    """The same step as the library does it."""

    def __init__(self, network: SegmentationNetwork, options: UniMatchOptions) -> None:
        self.student, self.options = copy.deepcopy(network), options
        self.teacher = copy.deepcopy(network).eval().requires_grad_(False)
        self.optimizer = _optimizer(self.student, options, fused=True)
        self.device = next(network.parameters()).device.type

    def step(self, batch: Batch, number: int) -> float:
        mixed = torch.autocast(self.device, torch.bfloat16, enabled=self.options.precision == "bfloat16")
        losses = step_losses(self.student, self.teacher, batch, self.options, number, autocast=mixed)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        _set_rates(self.optimizer, self.options, number)
        self.optimizer.step()
        update_teacher(self.teacher, self.student, ema_ratio(number, self.options.ema))
        return losses.total.detach()


def _optimizer(network: SegmentationNetwork, options: UniMatchOptions, fused: bool) -> torch.optim.AdamW:
    groups = [
        {"params": [each for each in network.encoder.parameters() if each.requires_grad], "factor": 1.0},
        {"params": list(network.decoder.parameters()), "factor": options.decoder_factor},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, weight_decay=options.weight_decay, fused=fused)


def _set_rates(optimizer: torch.optim.AdamW, options: UniMatchOptions, number: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = options.learning_rate * poly(number, options.steps, options.power) * group["factor"]


def random_batch(options: UniMatchOptions, number: int) -> Batch:
    draw = torch.Generator().manual_seed(number)
    count, size = options.batch, options.size

    def pictures() -> torch.Tensor:
        coarse = torch.rand(count, 3, 8, 8, generator=draw) * 255
        fine = F.interpolate(coarse, (size, size), mode="bicubic", align_corners=False)
        return fine.clamp(0, 255).byte().movedim(1, -1).contiguous()

    images = pictures()
    labels = (images[..., 0].long() * CLASSES // 256).clamp(0, CLASSES - 1)
    ignore = torch.zeros(count, size, size, dtype=torch.bool)
    ignore[0, -size // 8 :] = True
    rng = np.random.default_rng(number)
    boxes = [torch.from_numpy(np.stack([draw_cutmix_box(rng, size) for _ in range(count)])) for _ in range(2)]
    return Batch(images, labels, pictures(), (pictures(), pictures()), ignore, tuple(boxes))


def speed(arguments: argparse.Namespace) -> None:
    """Seconds a step, both ways, interleaved; ratio of the medians."""
    options = UniMatchOptions.of(
        "quick",
        network=NETWORKS[arguments.network],
        size=arguments.size,
        batch=arguments.batch,
        threshold=0.3,
        steps=1000,
        precision="float32",
    )
    device = torch.device(arguments.device)
    torch.manual_seed(0)
    network = SegmentationNetwork(options.network, CLASSES).to(device)
    ways = {"official": OfficialWay(network, options), "ours": OurWay(network, options)}
    if arguments.bfloat16:
        mixed = options.model_copy(update={"precision": "bfloat16"})
        ways["ours, bfloat16"] = OurWay(network, mixed)
    times: dict[str, list[float]] = {name: [] for name in ways}
    losses: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(arguments.warm + arguments.steps):
        batch = random_batch(options, number).to(device)
        for name, way in ways.items():
            started = _clock(device)
            losses[name].append(way.step(batch, number))
            elapsed = _clock(device) - started
            if number >= arguments.warm:
                times[name].append(elapsed)
    losses = {name: [float(value) for value in values] for name, values in losses.items()}
    difference = max(abs(a / b - 1) for a, b in zip(losses["official"], losses["ours"], strict=True))
    print(f"{arguments.network} {arguments.size} px, batch {arguments.batch} + {arguments.batch}, {device}")
    print(f"largest relative difference of the loss over {len(losses['ours'])} steps: {difference:.1e}")
    for name, values in times.items():
        median = statistics.median(values)
        ratio = statistics.median(times["official"]) / median
        print(f"{name:15s} {median:.3f} s a step (median of {len(values)}), {ratio:.2f} x as fast as official")


def _clock(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def dice(arguments: argparse.Namespace) -> None:
    """Train the variants for each seed and score the test cases."""
    from SSLSegLib.unimatch.run import label_cases, train

    jobs = dict(each.split("=", 1) for each in arguments.guide_job or [])
    table: dict[str, list[float]] = {}
    for seed in arguments.seeds:
        folder = Path(arguments.out) / f"seed_{seed}"
        cohort = _cohort(arguments, folder, seed)
        guide = Path(arguments.job or jobs[str(seed)]) if arguments.job or str(seed) in jobs else None
        for name in arguments.variants:
            changes = VARIANTS[name]
            if changes.get("guide") and guide is None:
                guide = make_guide(cohort, folder / "guide", arguments.weights, seed, arguments.insertions)
            changed = {"steps": arguments.steps, "size": arguments.size, "gate": arguments.gate, "save_every": 50}
            where = train(
                cohort,
                folder / name,
                UniMatchOptions.of("quick", seed=seed, **changed, **changes),
                guide_results=guide if changes.get("guide") else None,
                device=arguments.device,
            )
            label_cases(cohort, where, cohort.test, device=arguments.device)
            scores = test_dice(cohort, where.path / "results")
            table.setdefault(name, []).append(scores)
            print(f"seed {seed}  {name:22s} test Dice {scores:.3f}", flush=True)
        if guide is not None:
            print(f"seed {seed}  {'the guide itself':22s} Dice of unlabelled cases {guide_dice(cohort, guide):.3f}")
    for name, values in table.items():
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        print(f"{name:22s} {statistics.mean(values):.3f} ± {spread:.3f} over {len(values)} seeds")
    write_json(Path(arguments.out) / "dice.json", {"seeds": arguments.seeds, "steps": arguments.steps, "dice": table})


def _cohort(arguments: argparse.Namespace, folder: Path, seed: int) -> Cohort:
    """The cohort of ``--job``, or phantoms of this seed."""
    if arguments.job:
        from SSLSegLib.jobs.folder import Job

        return Job.open(Path(arguments.job)).manifest.checked_parameters().loaded_cohort()
    return make_phantom_cohort(
        folder / "cohort",
        seed=seed,
        labelled=2,
        unlabelled=12,
        test=4,
        classes=("liver", "kidneys", "spleen"),
        shape=tuple(arguments.shape),
    )


def make_guide(cohort: Cohort, folder: Path, weights: str, seed: int, insertions: int) -> Path:
    """TFFS pseudo-labels of the unlabelled cases, made once."""
    from SSLSegLib.pipelines import pseudo_label
    from SSLSegLib.pseudolabels.storage import is_complete, save_pseudo_label
    from SSLSegLib.tffs.options import TffsOptions
    from SSLSegLib.weights.loading import load_sam2

    folder.mkdir(parents=True, exist_ok=True)
    done = [case.id for case in cohort.unlabelled if is_complete(folder / case.id)]
    if len(done) < len(cohort.unlabelled):
        pseudo_label(
            cohort,
            load_sam2(weights),
            TffsOptions(insertions=insertions),
            seed=seed,
            sink=lambda label: save_pseudo_label(folder / label.case_id, label, cohort.classes),
            skip=done,
        )
    return folder


def test_dice(cohort: Cohort, results: Path) -> float:
    return _mean_dice(cohort, cohort.test, {case.id: results / case.id for case in cohort.test})


def guide_dice(cohort: Cohort, results: Path) -> float:
    folder = results / "results" if (results / "results").is_dir() else results
    return _mean_dice(cohort, cohort.unlabelled, {case.id: folder / case.id for case in cohort.unlabelled})


def _mean_dice(cohort: Cohort, cases, folders: dict[str, Path]) -> float:
    from SSLSegLib.pseudolabels.storage import load_pseudo_label

    values = []
    for case in cases:
        label, truth = load_pseudo_label(folders[case.id]), read_label(cohort, case, "reference")
        values.append(score_case(case.id, LabelMap(label.mask, label.geometry), truth, cohort.classes).mean("dice"))
    return statistics.mean(values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    fast = commands.add_parser("speed")
    fast.add_argument("--network", choices=list(NETWORKS), default="tiny")
    fast.add_argument("--size", type=int, default=96)
    fast.add_argument("--batch", type=int, default=4)
    fast.add_argument("--steps", type=int, default=6)
    fast.add_argument("--warm", type=int, default=2)
    fast.add_argument("--device", default="cpu")
    fast.add_argument("--bfloat16", action="store_true", help="Measure mixed precision too.")
    good = commands.add_parser("dice")
    good.add_argument("--out", required=True)
    good.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    good.add_argument("--steps", type=int, default=1000)
    good.add_argument("--size", type=int, help="Side of a view; the preset's by default.")
    good.add_argument("--insertions", type=int, default=5, help="R of the TFFS guide.")
    good.add_argument("--shape", type=int, nargs=3, default=(24, 80, 96))
    good.add_argument("--weights", default="sslseg-small", help="SAM2 for the TFFS guide.")
    good.add_argument("--job", help="A finished pseudo-labelling job: its cohort instead of phantoms, and the guide.")
    good.add_argument("--gate", choices=["teacher", "own", "either"], help="The preset's by default.")
    good.add_argument("--guide-job", nargs="*", help="SEED=FOLDER of a finished pseudo-labelling job.")
    good.add_argument("--device", default="cpu")
    good.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS)[:3])
    arguments = parser.parse_args()
    {"speed": speed, "dice": dice}[arguments.command](arguments)


if __name__ == "__main__":
    main()
