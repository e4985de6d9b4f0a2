"""The TFFS engine against the stock SAM2 video predictor: same process, same weights, same frames, one thread.

    python Testing/benchmarks/bench_tffs.py            ratio per chain and largest |dp| at 512 and 256 pixels; memory
    python Testing/benchmarks/bench_tffs.py --quick    the same, small: a few minutes become one
    python Testing/benchmarks/bench_tffs.py --gpu      seconds and memory for 40 slices, M = 10, R = 5 on a CUDA device

Weights are random and mild (``SSLSegLib.tffs.reference.mild_weights``) in the architecture of MedSAM2 (SAM 2.1 tiny at
512 pixels). A chain is one insertion. Times are CPU seconds of this process (``process_time``), so other work on the
machine counts little. Images are encoded once per volume by the engine; as every volume serves M x R chains (labelled
ones even more), that is given apart and not part of the ratio per chain. The stock predictor runs with PyTorch's fused
("flash") attention, its fastest on a CPU.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
import torch.nn.functional as F

from SSLSegLib.tffs.engine import TffsEngine
from SSLSegLib.tffs.ensemble import ProbabilitySums
from SSLSegLib.tffs.options import TffsOptions
from SSLSegLib.tffs.reference import mild_weights, stock_run
from SSLSegLib.weights.sam2_model import Sam2Configuration, build_sam2

IN_PLANE = (183, 140)


class SmoothFrames:
    """Frames made when asked for, so that they take no memory: smooth random images, (n, 3, size, size)."""

    def __init__(self, slices: int, size: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.coarse = torch.randn(slices, 3, 12, 12, generator=generator)
        self.size = size

    def __len__(self) -> int:
        return len(self.coarse)

    def __getitem__(self, index: slice) -> torch.Tensor:
        return F.interpolate(self.coarse[index], size=(self.size, self.size), mode="bicubic")


def ball_masks(slices: int, prompted: int) -> torch.Tensor:
    """A ball that drifts through the middle ``prompted`` of the slices, bool (slices, 199, 143)."""
    z, y, x = torch.meshgrid(torch.arange(slices), torch.arange(199), torch.arange(143), indexing="ij")
    masks = (y - 90) ** 2 + (x - 60 - z) ** 2 < 30**2
    first = (slices - prompted) // 2
    masks[:first] = False
    masks[first + prompted :] = False
    return masks


def cpu_seconds(work):
    """What the work returns, and the CPU seconds it took."""
    before = time.process_time()
    result = work()
    return result, time.process_time() - before


def compare(size: int, slices: int, insertions: int, precisions: list[str]) -> None:
    """Print ratio per chain and largest |dp| at one frame size."""
    configuration = Sam2Configuration(image_size=size)
    predictor = build_sam2(configuration, predictor=True)
    mild_weights(predictor, 0)
    model = build_sam2(configuration)
    model.load_state_dict(predictor.state_dict())
    unlabelled, labelled = SmoothFrames(slices, size, 1), SmoothFrames(slices, size, 2)
    mask = ball_masks(slices, slices)
    middle = slices // 2
    positions = sorted({middle, *(round(i * (slices - 1) / max(insertions - 1, 1)) for i in range(insertions))})
    positions = positions[:insertions] if middle in positions[:insertions] else positions[-insertions:]

    encoder = TffsEngine(model, TffsOptions())
    blocks, encoding = cpu_seconds(lambda: (encoder.encode(unlabelled), encoder.encode(labelled)))

    def engine_run(precision: str, at: list[int]):
        engine = TffsEngine(model, TffsOptions(precision=precision))
        template, prompting = cpu_seconds(lambda: engine.template(blocks[1], mask, IN_PLANE))
        sums = ProbabilitySums(slices, IN_PLANE)
        _, tracking = cpu_seconds(lambda: engine.propagate(blocks[0], template, at, IN_PLANE, sums))
        return sums, tracking / len(at), prompting

    def stock_chain():
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
            return stock_run(predictor, unlabelled[:], labelled[:], mask, middle, IN_PLANE)

    print(f"\n{size} px, {slices} unlabelled x {slices} labelled slices, one thread, CPU seconds")
    expected, stock_seconds = cpu_seconds(stock_chain)
    print(f"  stock predictor, one chain: {stock_seconds:.1f} s", flush=True)
    for precision in precisions:
        alone, seconds, prompting = engine_run(precision, [middle])
        difference = (torch.from_numpy(alone.mean) - expected).abs()
        flips = ((torch.from_numpy(alone.mean) > 0.5) != (expected > 0.5)).float().mean()
        _, shared, _ = engine_run(precision, positions)
        print(
            f"  {precision:6s} chain alone {seconds:6.2f} s = {stock_seconds / seconds:5.1f}x   "
            f"of {len(positions)} insertions {shared:6.2f} s = {stock_seconds / shared:5.1f}x   "
            f"max |dp| {difference.max():.1e}, mean {difference.mean():.1e}, labels that differ {100 * flips:.3f} %   "
            f"(once per volume: {encoding / (2 * slices):.2f} s a slice to encode, {prompting:.2f} s to prompt)",
            flush=True,
        )


def memory_child(slices: int, size: int) -> None:
    """Run one small job and print peak memory and bytes of features; called in a process of its own."""
    import resource

    model = build_sam2(Sam2Configuration(image_size=size))
    mild_weights(model, 0)
    engine = TffsEngine(model, TffsOptions())
    labelled = engine.encode(SmoothFrames(8, size, 2))
    template = engine.template(labelled, ball_masks(8, 8), IN_PLANE)
    unlabelled = engine.encode(SmoothFrames(slices, size, 1))
    sums = ProbabilitySums(slices, IN_PLANE)
    engine.propagate(unlabelled, template, [slices // 3, slices // 2], IN_PLANE, sums)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"slices": slices, "peak_mib": peak, "features_mib": unlabelled.nbytes / 2**20}))


def memory(size: int, counts: list[int]) -> None:
    """Print peak memory as the unlabelled volume grows, each in a process of its own."""
    print(f"\nPeak memory of the process at {size} px, 8 labelled slices, R = 2")
    for slices in counts:
        command = [sys.executable, __file__, "--memory-child", str(slices), "--size", str(size)]
        finished = subprocess.run(command, capture_output=True, text=True, check=True)
        told = json.loads(finished.stdout.splitlines()[-1])
        rest = told["peak_mib"] - told["features_mib"]
        print(
            f"  {slices:4d} slices: {told['peak_mib']:7.0f} MiB, of it image features {told['features_mib']:6.0f} MiB,"
            f" all else {rest:6.0f} MiB"
        )


def gpu(slices: int = 40, prompted: int = 30, labelled_count: int = 10, insertions: int = 5) -> None:
    """Print seconds and memory of one unlabelled volume on a CUDA device."""
    if not torch.cuda.is_available():
        print("\nNo CUDA device here: the GPU figures are left out.")
        return
    model = build_sam2(Sam2Configuration(image_size=512))
    mild_weights(model, 0)
    print(
        f"\n{torch.cuda.get_device_name()}: {slices} slices, {prompted} prompted,"
        f" M = {labelled_count}, R = {insertions}"
    )
    frames = SmoothFrames(slices, 512, 1)
    positions = [round(i * (slices - 1) / (insertions - 1)) for i in range(insertions)]
    for precision in ("fast", "official", "exact"):
        engine = TffsEngine(model, TffsOptions(precision=precision), "cuda")
        blocks = [engine.encode(SmoothFrames(slices, 512, seed + 2)) for seed in range(labelled_count)]
        templates = [engine.template(block, ball_masks(slices, prompted), IN_PLANE) for block in blocks]

        def volume(engine=engine, templates=templates):
            features = engine.encode(frames)
            sums = ProbabilitySums(slices, IN_PLANE, "cuda")
            for template in templates:
                engine.propagate(features, template, positions, IN_PLANE, sums)
            torch.cuda.synchronize()

        volume()
        torch.cuda.reset_peak_memory_stats()
        before = time.perf_counter()
        volume()
        seconds = time.perf_counter() - before
        peak = torch.cuda.max_memory_allocated() / 2**30
        print(f"  {precision:8s} {seconds:6.2f} s a volume, {peak:5.2f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=None, help="frame sizes in pixels (512 256)")
    parser.add_argument("--slices", type=int, default=None, help="slices of both volumes (16)")
    parser.add_argument("--insertions", type=int, default=5, help="R of the shared measurement (5)")
    parser.add_argument("--precisions", nargs="+", default=["exact", "fast"])
    parser.add_argument("--quick", action="store_true", help="8 slices at 256 pixels, R = 2, less memory")
    parser.add_argument("--gpu", action="store_true", help="only the GPU measurement")
    parser.add_argument("--no-memory", action="store_true", help="leave out the memory measurement")
    parser.add_argument("--memory-child", type=int, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, default=128, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.memory_child is not None:
        memory_child(given.memory_child, given.size)
        return
    if not given.gpu:
        for size in given.sizes or ([256] if given.quick else [512, 256]):
            slices = given.slices or (8 if given.quick else 16)
            compare(size, slices, 2 if given.quick else given.insertions, given.precisions)
        if not given.no_memory:
            memory(128, [16, 32, 64] if given.quick else [32, 64, 128])
    gpu()


if __name__ == "__main__":
    main()
