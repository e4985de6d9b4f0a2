"""Kills at random moments: ``python Testing/benchmarks/bench_kill.py [--kills 100] [--cohort COHORT.json]``.

A small pseudo-labelling job is killed with SIGKILL at random moments (the worker, or the parent that started it),
resumed and killed again until it finishes; then the next job begins, until so many kills have been made. Every finished
job must equal the uninterrupted one to the byte. Prints what a kill cost: the work that had to be done again, the end
of the worker when its parent was killed, and the latency of a polite cancel.
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
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARY = HERE.parent.parent
sys.path.insert(0, str(LIBRARY))

import psutil  # noqa: E402

from SSLSegLib.cases.cohort import Cohort  # noqa: E402
from SSLSegLib.jobs.events import read_events  # noqa: E402
from SSLSegLib.jobs.folder import Job  # noqa: E402
from SSLSegLib.jobs.lock import lock_owner  # noqa: E402
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
    return small_job.small_manifest(folder, unlabelled=6, slices=8)


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


def seconds_of_work(job: Job) -> float:
    """Seconds of the cases that were finished, by the job's own account."""
    events = read_events(job.events_path)
    return sum(event.get("seconds", 0.0) for event in events if event["event"] == "result")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cohort", type=Path)
    parser.add_argument("--weights", default="sslseg-small")
    options = parser.parse_args()
    moments = random.Random(options.seed)
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="sslseg-kill-") as temporary:
        folder = Path(temporary)
        manifest = manifest_of(options.cohort, options.weights) if options.cohort else tiny_manifest(folder / "inputs")
        uninterrupted = Job.create(folder / "uninterrupted", manifest)
        began = time.monotonic()
        assert start_job(uninterrupted.folder).wait().status == "finished"
        alone = time.monotonic() - began
        expected = contents(uninterrupted)
        cases = len(
            uninterrupted.finished([case.id for case in manifest.checked_parameters().loaded_cohort().unlabelled])
        )
        print(f"uninterrupted: {cases} cases in {alone:.1f} s, {len(expected)} files", flush=True)

        kills = equal = jobs = torn = orphans = 0
        lost: list[float] = []
        ending: list[float] = []
        while kills < options.kills:
            job = Job.create(folder / f"job{jobs}", manifest)
            while job.state().status != "finished":
                victim = moments.choice(["worker", "parent"])
                parent = subprocess.Popen(
                    [sys.executable, "-c", PARENT, str(job.folder)],
                    stdout=subprocess.PIPE,
                    env=environment,
                    cwd=LIBRARY,
                )
                started, pid = time.monotonic(), int(parent.stdout.readline())
                before = len(job.finished([name.name for name in (job.folder / "results").glob("[!.]*")]))
                # A little beyond the run's length, so that some runs finish and the next job begins.
                deadline = started + moments.uniform(0, 1.2 * alone) if kills < options.kills else float("inf")
                while time.monotonic() < deadline and not ended(pid):
                    time.sleep(0.01)
                if not ended(pid) and kills < options.kills:
                    kills += 1
                    os.kill(pid if victim == "worker" else parent.pid, signal.SIGKILL)
                    killed = time.monotonic()
                    while not ended(pid) and time.monotonic() - killed < 30:
                        time.sleep(0.01)
                    ending.append(time.monotonic() - killed)
                    orphans += not ended(pid)
                    gained = len(job.finished([name.name for name in (job.folder / "results").glob("[!.]*")])) - before
                    lost.append(max(killed - started - gained * alone / max(cases, 1), 0.0))
                parent.wait(60)
                try:
                    job.state()
                    read_events(job.events_path)
                except Exception as error:
                    torn += 1
                    print(f"torn: {error}", flush=True)
            equal += contents(job) == expected
            jobs += 1
            print(f"{kills} kills, {jobs} jobs, {equal} equal to the uninterrupted one", flush=True)

        job = Job.create(folder / "cancelled", manifest)
        child = start_job(job.folder)
        while job.state().status != "running" and child.running:
            time.sleep(0.01)
        began = time.monotonic()
        state = cancel_job(job.folder)
        print(f"cancel: {time.monotonic() - began:.2f} s, the job is {state.status}, lock {lock_owner(job.lock_path)}")
        child.wait()
    print(f"kills {kills}, jobs {jobs}, equal {equal}, torn files {torn}, orphans {orphans}")
    print(f"lost a kill (start-up included): median {statistics.median(lost):.1f} s, most {max(lost):.1f} s")
    print(f"end of the worker after a kill: median {statistics.median(ending):.2f} s, most {max(ending):.2f} s")
    return 0 if equal == jobs and not torn and not orphans else 1


if __name__ == "__main__":
    sys.exit(main())
