"""Injected faults: ``python Testing/benchmarks/bench_faults.py``. What running out of memory or disk costs a small job.

Memory: the real step of the engine on a device that holds so many chains at a time and no more. Prints how often the
run began anew, how long it took, and how far its probabilities are from those of the run with memory enough. Disk: the
file system says that it is full when a result is written; prints how the job ended and whether it finishes afterwards.
"""

import errno
import importlib.util
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from SSLSegLib.errors import JobError  # noqa: E402
from SSLSegLib.jobs.events import read_events  # noqa: E402
from SSLSegLib.jobs.folder import Job  # noqa: E402
from SSLSegLib.jobs.runner import run_job  # noqa: E402
from SSLSegLib.pseudolabels import storage  # noqa: E402
from SSLSegLib.tffs.chain import Tracker  # noqa: E402


def small_job():
    specification = importlib.util.spec_from_file_location("small_job", HERE.parent / "jobs" / "small_job.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules["small_job"] = module
    specification.loader.exec_module(module)
    return module


@contextmanager
def room_for(chains: int) -> Iterator[None]:
    """A device on which more chains than these at a time do not fit."""
    step = Tracker._step_batch

    def limited(self, given, *rest):
        if self.batch > chains:
            raise torch.OutOfMemoryError("CUDA out of memory (injected).")
        return step(self, given, *rest)

    with mock.patch.object(Tracker, "_step_batch", limited):
        yield


@contextmanager
def full_disk(after: int) -> Iterator[None]:
    """A file system that is full once so many results have been written."""
    save, written = storage.save_pseudo_label, []

    def limited(*arguments):
        if len(written) >= after:
            raise OSError(errno.ENOSPC, "No space left on device (injected)")
        written.append(save(*arguments))

    with mock.patch.object(storage, "save_pseudo_label", limited):
        yield


def main() -> int:
    small, good = small_job(), True
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="sslseg-faults-") as temporary:
        folder = Path(temporary)
        manifest = small.small_manifest(folder / "inputs", unlabelled=4, slices=6)
        run_job(Job.create(folder / "warm", manifest))
        whole = Job.create(folder / "whole", manifest)
        began = time.monotonic()
        run_job(whole)
        print(f"memory enough: {time.monotonic() - began:.1f} s", flush=True)
        for chains in (1, 0):
            job = Job.create(folder / f"chains{chains}", manifest)
            began, outcome = time.monotonic(), "finished"
            try:
                with room_for(chains):
                    run_job(job)
            except JobError as error:
                outcome = f"refused: {error.problem}"
            seconds = time.monotonic() - began
            again = sum(event["event"] == "warning" for event in read_events(job.events_path))
            print(f"room for {chains} chains: {outcome}; begun anew {again} times, {seconds:.1f} s", flush=True)
            good &= (outcome == "finished") == (chains > 0)
            run_job(job)  # with memory again
            cases = [case.id for case in manifest.checked_parameters().loaded_cohort().unlabelled]
            furthest = max(
                float(np.abs(one.probability - other.probability).max())
                for one, other in (
                    [storage.load_pseudo_label(each.result_folder(case)) for each in (job, whole)] for case in cases
                )
            )
            print(f"  largest difference of a probability to the run with memory enough: {furthest:.1e}")
            good &= furthest < 1e-4
        job = Job.create(folder / "disk", manifest)
        try:
            with full_disk(after=2):
                run_job(job)
        except JobError as error:
            print(f"disk full after 2 results: {error.problem} {error.remedy}")
        kept = len(list((job.folder / "results").glob("[!.]*")))
        run_job(job)
        equal = small.contents(job) == small.contents(whole)
        print(f"  {kept} results kept; with space again {job.state().status}, {'equal' if equal else 'NOT EQUAL'}")
        good &= equal and kept == 2
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
