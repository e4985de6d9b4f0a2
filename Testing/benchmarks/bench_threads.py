"""A UniMatch step with one thread and with one per core, alone and beside another training, waiting and spinning.

    python Testing/benchmarks/bench_threads.py [--steps 6]

Threads that wait for each other may spin (what OpenMP does when it is told nothing) or sleep (``OMP_WAIT_POLICY``
``PASSIVE``, which all entry points of SSLSeg set unless the user has set another). The policy is read when torch is
loaded: each measurement is a process of its own. Wall clock, median of the steps after the first two.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parent)]

WAYS = {"sleeping": {"OMP_WAIT_POLICY": "PASSIVE"}, "spinning": {}}
WARM = 2


def measure(threads: int, steps: int) -> float:
    """Seconds a step of UniMatch v2 with the tiny network (128 pixels, batch 4 + 4)."""
    import torch
    from bench_unimatch import CLASSES, OurWay, random_batch

    from SSLSegLib.unimatch.configuration import NETWORKS
    from SSLSegLib.unimatch.network import SegmentationNetwork
    from SSLSegLib.unimatch.options import UniMatchOptions

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    options = UniMatchOptions.of("quick", network=NETWORKS["tiny"], size=128, batch=4, precision="float32")
    way, times = OurWay(SegmentationNetwork(options.network, CLASSES), options), []
    for number in range(WARM + steps):
        batch = random_batch(options, number)
        began = time.perf_counter()
        way.step(batch, number)
        times.append(time.perf_counter() - began)
    return statistics.median(times[WARM:])


def together(processes: int, threads: int, steps: int, environment: dict[str, str]) -> float:
    """The same in so many processes at once: the mean of what they say."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    command = [sys.executable, __file__, "--measure", str(threads), "--steps", str(steps)]
    environment = {**clean, "OMP_NUM_THREADS": str(threads), **environment}
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
    said = [each.communicate()[0] for each in running]
    if any(each.returncode for each in running):
        sys.exit("A measurement failed.")
    return statistics.mean(map(float, said))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--measure", type=int, metavar="THREADS", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(measure(given.measure, given.steps))
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    one = together(1, 1, given.steps, WAYS["sleeping"])
    print(f"one training, 1 thread: {one:.3f} s a step")
    for way, environment in WAYS.items():
        for processes in (1, 2):
            seconds = together(processes, cores, given.steps, environment)
            what = "one training" if processes == 1 else "each of two trainings"
            print(f"{what}, {cores} threads, {way}: {seconds:.3f} s a step, {one / seconds:.2f} x as fast", flush=True)


if __name__ == "__main__":
    main()
