"""Throughput on Dask: ``python Testing/benchmarks/bench_dask.py [--cases 8] [--queued 1000]``.

One small job run here, then on a LocalCluster of 1 and of 2 worker processes: seconds, cases a minute, overhead a
case, and whether the results are the same to the byte. Then ``--queued`` tasks that do next to nothing, for the growth
of memory of this process and of the scheduler.
"""

import argparse
import gc
import importlib.util
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

import distributed  # noqa: E402
import psutil  # noqa: E402

from SSLSegLib.jobs import cluster_cases  # noqa: E402
from SSLSegLib.jobs.folder import Job  # noqa: E402
from SSLSegLib.jobs.runner import run_job  # noqa: E402
from SSLSegLib.progress import silent  # noqa: E402


def small_job():
    specification = importlib.util.spec_from_file_location("small_job", HERE.parent / "jobs" / "small_job.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules["small_job"] = module
    specification.loader.exec_module(module)
    return module


def cluster(workers: int) -> distributed.LocalCluster:
    return distributed.LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=None
    )


def nothing_much(manifest_text: str, case_id: str, shared: dict, own: dict) -> tuple[dict[str, bytes], float]:
    """In place of a pseudo-label: files of its size."""
    return {"labels.nii.gz": case_id.encode() * 1000}, 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--slices", type=int, default=12)
    parser.add_argument("--queued", type=int, default=1000)
    options = parser.parse_args()
    small = small_job()
    same = True
    with tempfile.TemporaryDirectory(prefix="sslseg-dask-") as temporary:
        folder = Path(temporary)
        manifest = small.small_manifest(folder, unlabelled=options.cases, slices=options.slices)
        here = Job.create(folder / "local", manifest)
        began = time.monotonic()
        run_job(here)
        alone = time.monotonic() - began
        print(f"local:     {alone:6.1f} s, {60 * options.cases / alone:6.1f} cases a minute", flush=True)
        for workers in (1, 2):
            with cluster(workers) as dask:
                for round_ in ("cold", "warm"):  # cold workers import torch and encode the labelled cases first
                    job = Job.create(folder / f"dask{workers}{round_}", manifest)
                    job.scheduler = dask.scheduler_address.replace("tcp", "dask")
                    began = time.monotonic()
                    run_job(job)
                    seconds = time.monotonic() - began
                    equal = small.contents(job) == small.contents(here)
                    same &= equal
                    per_case = (seconds * workers - alone) / options.cases
                    print(
                        f"{workers} worker{'s' * (workers > 1):1} {round_}: {seconds:6.1f} s, "
                        f"{60 * options.cases / seconds:6.1f} cases a minute, {per_case:+.2f} worker-seconds a case "
                        f"against local, results {'equal' if equal else 'DIFFER'}",
                        flush=True,
                    )
        with cluster(2) as dask, distributed.Client(dask, set_as_default=False) as client:
            queue = Job.create(folder / "queued", manifest)
            queue.scheduler = "dask://unused:1"
            real, cluster_cases.segment_case = cluster_cases.segment_case, nothing_much
            process, rss = psutil.Process(), []

            def told(case_id: str) -> None:
                if int(case_id[1:]) % 100 == 0:
                    gc.collect()
                    rss.append(process.memory_info().rss / 1e6)

            began = time.monotonic()
            names = [f"q{number}" for number in range(options.queued)]
            cluster_cases.segment_on_cluster(queue, names, told, silent, client=client)
            seconds = time.monotonic() - began
            cluster_cases.segment_case = real
            left = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
        growth = rss[-1] - rss[min(1, len(rss) - 1)] if rss else 0.0
        print(
            f"{options.queued} queued: {seconds:.1f} s, {1000 * seconds / max(options.queued, 1):.1f} ms each, memory "
            f"{growth:+.1f} MB from the first hundred to the last, {left} tasks left on the scheduler"
        )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
