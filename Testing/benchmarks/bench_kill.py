"""Kills at random moments: ``python Testing/benchmarks/bench_kill.py [--kills 100] [--cohort COHORT.json]``.

A small pseudo-labelling job is killed with SIGKILL at random moments (the worker, or the parent that started it),
resumed and killed again until it finishes; then the next job begins, until so many kills have been made. Every finished
job must equal the uninterrupted one to the byte. Prints what a kill cost: the work that had to be done again, the end
of the worker when its parent was killed; then the latency of a polite cancel, and how long a lock stays stale.

``--forked``: parent and worker are forks of this process, which has loaded torch already, so that kills fall into the
work and not into the start; what they run is the same. ``--demo``: the demo's own job with its trainings instead of the
small one, see ``kill_demo.py``. Trainings alone: ``bench_selftraining_kill.py``.
"""

import argparse
import importlib.util
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARY = HERE.parent.parent
sys.path.insert(0, str(LIBRARY))

import psutil  # noqa: E402

from SSLSegLib.cases.cohort import Cohort  # noqa: E402
from SSLSegLib.jobs.events import read_events  # noqa: E402
from SSLSegLib.jobs.folder import Job  # noqa: E402
from SSLSegLib.jobs.lock import JobLock, lock_owner  # noqa: E402
from SSLSegLib.jobs.manifest import Manifest  # noqa: E402
from SSLSegLib.jobs.process import cancel_job, start_job  # noqa: E402

# Starts a job and waits for it, so that killing this parent must end the worker.
PARENT = "import sys; from pathlib import Path; from SSLSegLib.jobs.process import start_job; "
PARENT += "child = start_job(Path(sys.argv[1])); print(child.pid, flush=True); child.wait()"


def tiny_manifest(folder: Path) -> Manifest:
    specification = importlib.util.spec_from_file_location("small_job", HERE.parent / "jobs" / "small_job.py")
    small_job = importlib.util.module_from_spec(specification)
    sys.modules["small_job"] = small_job
    specification.loader.exec_module(small_job)
    return small_job.small_manifest(folder, unlabelled=4, slices=4)


def manifest_of(cohort: Path, weights: str) -> Manifest:
    from SSLSegLib.jobs.tffs import tffs_manifest
    from SSLSegLib.tffs.options import TffsOptions

    options = TffsOptions(insertions=2)
    return tffs_manifest(Cohort.load(cohort), weights, options, device="cpu", threads=1, report=False, scene=False)


def contents(job: Job) -> dict[str, bytes]:
    results = job.folder / "results"
    return {path.relative_to(results).as_posix(): path.read_bytes() for path in sorted(results.rglob("*.*"))}


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def start_here(folder: Path) -> tuple[int, int]:
    """A parent and its worker as forks of this process: their ids."""
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        worker = os.fork()
        if worker == 0:
            _work(folder, os.getppid())
        os.write(writer, str(worker).encode())
        os.close(writer)
        os.waitpid(worker, 0)
        os._exit(0)
    os.close(writer)
    worker = int(os.read(reader, 20))
    os.close(reader)
    return parent, worker


def _work(folder: Path, parent: int) -> None:
    """In the worker: what ``python -m SSLSegLib.jobs.worker`` does after its imports."""
    from SSLSegLib.jobs.worker import main as work

    code = 1
    try:
        os.setsid()
        with open(folder / "worker.out", "ab") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        code = work([str(folder), "--parent", str(parent), "--parent-start", str(psutil.Process(parent).create_time())])
    finally:
        os._exit(code)


def start_parent(folder: Path) -> "subprocess.Popen[bytes]":
    """A parent process that starts the job and prints the worker's id."""
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", PARENT, str(folder)], stdout=subprocess.PIPE, env=environment, cwd=LIBRARY
    )


def start_anew(folder: Path) -> tuple[int, int]:
    """A parent process that starts the job, and its worker: their ids."""
    parent = start_parent(folder)
    return parent.pid, int(parent.stdout.readline())


@dataclass
class Tally:
    """What became of the kills."""

    kills: dict[str, int] = field(default_factory=lambda: {"worker": 0, "parent": 0})
    jobs: int = 0
    equal: int = 0
    torn: int = 0
    orphans: int = 0
    lost: list[float] = field(default_factory=list)
    ending: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        """Four lines for people."""
        return (
            f"kills: {self.kills['worker']} of the worker, {self.kills['parent']} of the parent; jobs {self.jobs}, "
            f"equal {self.equal}, torn files {self.torn}, orphans {self.orphans}\n"
            f"lost a kill: median {statistics.median(self.lost):.1f} s, most {max(self.lost):.1f} s\n"
            f"end of the worker after a kill: median {statistics.median(self.ending):.2f} s, "
            f"most {max(self.ending):.2f} s"
        )


def results_of(job: Job) -> int:
    return len(job.finished([folder.name for folder in (job.folder / "results").glob("[!.]*")]))


def kill_until_finished(job: Job, start, tally: Tally, most: int, moments: random.Random, alone: float, cases: int):
    """Start, kill, start again, until the job is finished; beyond so many kills it is left alone."""
    while job.state().status != "finished":
        victim = moments.choice(["worker", "parent"])
        before, began = results_of(job), time.monotonic()
        parent, worker = start(job.folder)
        spare = sum(tally.kills.values()) >= most
        # A little beyond the run's length, so that some runs finish and the next job begins.
        deadline = float("inf") if spare else began + moments.uniform(0, 1.2 * alone)
        while time.monotonic() < deadline and not ended(worker):
            time.sleep(0.01)
        if not ended(worker):
            tally.kills[victim] += 1
            killed = time.monotonic()
            os.kill(worker if victim == "worker" else parent, signal.SIGKILL)
            while not ended(worker) and time.monotonic() - killed < 30:
                time.sleep(0.01)
            tally.ending.append(time.monotonic() - killed)
            tally.orphans += not ended(worker)
            tally.lost.append(max(killed - began - (results_of(job) - before) * alone / max(cases, 1), 0.0))
        os.waitpid(parent, 0)
        try:
            job.state()
            read_events(job.events_path)
        except Exception as error:
            tally.torn += 1
            print(f"torn: {error}", flush=True)


def cancel_and_take_over(job: Job) -> None:
    """Print how long a polite cancel takes, and how soon after a SIGKILL the job can be taken over."""
    child = start_job(job.folder)
    while job.state().status != "running" and child.running:
        time.sleep(0.01)
    began = time.monotonic()
    state = cancel_job(job.folder)
    print(f"cancel: {time.monotonic() - began:.2f} s, the job is {state.status}, lock {lock_owner(job.lock_path)}")
    child.wait()
    child = start_job(job.folder)
    while lock_owner(job.lock_path) is None and child.running:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    began = time.monotonic()
    with JobLock(job.lock_path) as lock:
        seconds = time.monotonic() - began
        print(
            f"stale lock of a killed owner: taken over in {1000 * seconds:.0f} ms (was {lock.taken_over_from['pid']})"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cohort", type=Path)
    parser.add_argument("--weights", default="sslseg-small")
    parser.add_argument("--forked", action="store_true")
    parser.add_argument("--limit", type=float, default=float("inf"), help="Seconds after which no more kills are made.")
    parser.add_argument("--demo", action="store_true", help="The job of make demo, trainings and all.")
    parser.add_argument("--work", type=Path, default=Path("build/kill-demo"), help="With --demo: where; goes on there.")
    parser.add_argument("--epochs", type=int, help="With --demo: of its trainings; default: the demo's own.")
    parser.add_argument("--iterations", type=int, help="With --demo: of an epoch; default: the demo's own.")
    parser.add_argument("--longest", type=float, default=60, help="With --demo: most seconds from a start to a kill.")
    options = parser.parse_args()
    if options.demo:
        sys.path.insert(0, str(HERE))
        from kill_demo import bench_demo

        return bench_demo(options, start_parent)
    moments, tally = random.Random(options.seed), Tally()
    end = time.monotonic() + options.limit
    start = start_anew
    if options.forked:
        import torch

        import SSLSegLib.jobs.segmenting
        import SSLSegLib.pipelines
        import SSLSegLib.pseudolabels.storage
        import SSLSegLib.tffs.engine
        import SSLSegLib.weights.loading  # noqa: F401

        torch.set_num_threads(1)
        start = start_here
    with tempfile.TemporaryDirectory(prefix="sslseg-kill-") as temporary:
        folder = Path(temporary)
        manifest = manifest_of(options.cohort, options.weights) if options.cohort else tiny_manifest(folder / "inputs")
        uninterrupted = Job.create(folder / "uninterrupted", manifest)
        began = time.monotonic()
        kill_until_finished(uninterrupted, start, Tally(), 0, moments, 0, 0)
        alone = time.monotonic() - began
        expected = contents(uninterrupted)
        cases = results_of(uninterrupted)
        print(f"uninterrupted: {cases} cases in {alone:.1f} s, {len(expected)} files", flush=True)
        while sum(tally.kills.values()) < options.kills and time.monotonic() < end:
            job = Job.create(folder / f"job{tally.jobs}", manifest)
            kill_until_finished(job, start, tally, options.kills, moments, alone, cases)
            tally.equal += contents(job) == expected
            tally.jobs += 1
            kills = sum(tally.kills.values())
            print(f"{kills} kills, {tally.jobs} jobs, {tally.equal} equal to the uninterrupted one", flush=True)
        cancel_and_take_over(Job.create(folder / "cancelled", manifest))
    print(tally if tally.lost else "no kill was made")
    return 0 if tally.lost and tally.equal == tally.jobs and not tally.torn and not tally.orphans else 1


if __name__ == "__main__":
    sys.exit(main())
