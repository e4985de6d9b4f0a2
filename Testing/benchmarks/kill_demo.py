"""The demo's own job, killed at random moments: ``python Testing/benchmarks/bench_kill.py --demo``.

What ``make demo`` runs (its phantom cohort, the bundled weights, pseudo-labels, two rounds of self-training, the
labelled-only network, predictions, report) is started as the panel does: a parent, its worker, and the worker's
trainings. One that lives then is killed with SIGKILL; the job is resumed and killed again until it is finished, and
the next job begins. ``--epochs`` and ``--iterations`` shorten the trainings, so that many jobs finish.

Compared with an uninterrupted run, to the byte: all of ``results/`` (labels, probabilities, checksums), the labels of
every round and of the baseline, the predictions of the test cases with their probabilities, the tables of the report;
number for number: weights and optimizer states of all networks, folds, roles and agreements of the rounds. Left out is
what holds a time of day (logs and events, the seconds of a round, hashes of checkpoint files, the report's page).

Every kill and every job is a line of ``WORK/kills.jsonl`` at once: what is stopped (SIGTERM) prints what it has, and
the same command goes on.
"""

import json
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from SSLSegLib.jobs.events import EventFollower, read_events
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.manifest import Manifest

__all__ = ["bench_demo"]

_PATIENCE = 120.0  # seconds after which what lives on is an orphan; on a starved machine even dying takes long
_KEPT = (  # what a later run does not compute again
    "results/*/checksums.json",
    "selftraining/base/planned.json",
    "selftraining/**/relabelled.json",
    "selftraining/**/round.json",
    "selftraining/**/fold_*/checkpoint_*.pth",
    "selftraining/**/fold_*/validation/*.nii.gz",
    "selftraining/**/fold_*/done.json",
    "predictions/*/*/result.json",
    "report/made-from.json",
)


def demo_manifest(folder: Path, epochs: int | None, iterations: int | None) -> Manifest:
    """The demo's job on the demo's scans, on one thread; other numbers of epochs and iterations where given."""
    from SSLSegLib.cases.phantoms import make_phantom_cohort
    from SSLSegLib.commands import demo
    from SSLSegLib.jobs.ssl_medsam2 import ssl_medsam2_manifest
    from SSLSegLib.selftraining.options import SelfTrainingOptions
    from SSLSegLib.tffs.options import TffsOptions
    from SSLSegLib.weights.catalogue import BUNDLED

    cohort = make_phantom_cohort(folder / "phantom", seed=demo._SEED, labelled=demo._LABELLED, test=demo._TEST_CASES)
    training = SelfTrainingOptions.of("quick", folds=demo._FOLDS, devices=("auto",))
    changes = {name: value for name, value in (("epochs", epochs), ("iterations", iterations)) if value is not None}
    # A shortened training may converge after its first round; the demo has two.
    training = training.model_copy(
        update={"schedule": training.schedule.model_copy(update=changes)} | ({"stop_gain": -1.0} if changes else {})
    )
    return ssl_medsam2_manifest(cohort, BUNDLED, TffsOptions(), training, device="auto", threads=1)


# What is compared


def _plain_files(job: Path) -> dict[str, bytes]:
    patterns = ("results/**/*", "selftraining/**/predictions/*", "selftraining/**/validation/*", "predictions/**/*")
    found = {path for pattern in (*patterns, "report/*.csv", "selftraining/folds.json") for path in job.glob(pattern)}
    files = {path.relative_to(job).as_posix(): path for path in sorted(found) if path.is_file()}
    made_by = {name for name in files if name.startswith("predictions/") and name.endswith("result.json")}
    return {name: path.read_bytes() for name, path in files.items() if name not in made_by}


def _without_times(job: Path) -> dict[str, Any]:
    """JSON files that also hold a time, or the hash of a file with one, without these."""
    files = [*job.glob("predictions/*/*/result.json"), *job.glob("selftraining/**/round.json")]
    left_out = {"checkpoints", "seconds"}
    return {
        path.relative_to(job).as_posix(): {
            name: value for name, value in json.loads(path.read_bytes()).items() if name not in left_out
        }
        for path in sorted(files)
    }


def _networks(job: Path) -> dict[str, Path]:
    return {path.relative_to(job).as_posix(): path for path in job.glob("selftraining/**/checkpoint_*.pth")}


def differences(whole: Path, cut: Path) -> list[str]:
    """Names of what is not the same in two finished job folders; see the head of this file for what is compared."""
    import torch

    wrong = []
    for one, other in (
        (_plain_files(whole), _plain_files(cut)),
        (_without_times(whole), _without_times(cut)),
    ):
        wrong += [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]
    mine, theirs = _networks(whole), _networks(cut)
    for name in sorted({*mine, *theirs}):
        if name not in mine or name not in theirs:
            wrong.append(name)
            continue
        one, other = (torch.load(networks[name], weights_only=True) for networks in (mine, theirs))
        if not all(_same(one[part], other[part]) for part in ("network_weights", "optimizer_state", "current_epoch")):
            wrong.append(name)
    return wrong


def _same(one: Any, other: Any) -> bool:
    import torch

    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


# What lives


def _ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _at_work_in(folder: Path) -> list[psutil.Process]:
    """Every process that works in a job folder, whoever its parent is: workers start there, trainings inherit it."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()) == folder and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def _trainings(worker: psutil.Process) -> list[psutil.Process]:
    """Children of a worker that train or plan."""
    trainings = []
    try:
        for child in worker.children():
            if any(part.startswith("SSLSegLib.selftraining.") for part in child.cmdline()):
                trainings.append(child)
    except psutil.Error:
        pass
    return trainings


def _lost(folder: Path, began: float, trainings: list[psutil.Process]) -> float:
    """Seconds since the last thing that a later run keeps: of a training its own, the longest where two run."""

    def since(files: Iterator[Path], start: float) -> float:
        times = [start]
        for path in files:
            try:
                times.append(path.stat().st_mtime)
            except FileNotFoundError:
                continue
        return time.time() - max(times)

    seconds = []
    for training in trainings:
        try:
            spec = next(Path(part) for part in training.cmdline() if part.endswith(".json"))
            kept = (
                path for pattern in _KEPT for path in spec.parent.glob(f"res/**/{spec.stem}/**/{Path(pattern).name}")
            )
            seconds.append(since(kept, training.create_time()))
        except (psutil.Error, StopIteration):
            continue
    return max(seconds) if seconds else since((path for pattern in _KEPT for path in folder.glob(pattern)), began)


# Kills


def _is_work(event: dict[str, Any]) -> bool:
    """Whether an event tells of something done, and not of something found that was done before."""
    if event["event"] == "metric":
        return "epoch" in event
    return event["event"] in ("result", "predicted", "refined") and not event.get("resumed")


class Book:
    """What happened, a line each, on disk at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def note(self, what: str, **fields: Any) -> None:
        self.lines.append({"what": what, **fields})
        with open(self.path, "a", encoding="utf-8") as opened:
            opened.write(json.dumps(self.lines[-1]) + "\n")

    def of(self, what: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["what"] == what]

    def __str__(self) -> str:
        """The figures, for people."""
        kills, jobs, runs = self.of("kill"), self.of("job"), self.of("run")
        if not kills:
            return "no kill was made"
        by_victim, by_stage = Counter(kill["victim"] for kill in kills), Counter(kill["stage"] for kill in kills)
        lost, ending = [kill["lost"] for kill in kills], [kill["ending"] for kill in kills if not kill["at_once"]]
        alone = next((line["seconds"] for line in self.of("uninterrupted")), 0.0)
        in_finished = [kill for kill in kills if kill["job"] < len(jobs)]
        spent = sum(run["seconds"] for run in runs if run["job"] < len(jobs))
        dearer = (spent - alone * len(jobs)) / max(len(in_finished), 1)
        equal = sum(not job["differs"] for job in jobs)
        return "\n".join(
            (
                f"kills: {len(kills)} ({', '.join(f'{count} {name}' for name, count in sorted(by_victim.items()))}); "
                f"at once resumed {sum(kill['at_once'] for kill in kills)}",
                f"jobs finished: {len(jobs)}, equal {equal}; torn files {sum(kill['torn'] for kill in kills)}, "
                f"orphans {sum(kill['orphans'] for kill in kills)}, ended by themselves {len(self.of('fault'))}",
                f"uninterrupted {alone:.0f} s; a kill lost: median {statistics.median(lost):.1f} s, "
                f"most {max(lost):.1f} s; with the start {dearer:.1f} s a kill",
                f"all processes ended after a kill: median {statistics.median(ending or [0]):.2f} s, "
                f"most {max(ending, default=0):.2f} s",
                "stages: " + "; ".join(f"{name} {count}" for name, count in by_stage.most_common()),
            )
        )


class Killing:
    """One job after another, killed until it is finished."""

    def __init__(self, work: Path, manifest: Manifest, start: Callable[[Path], tuple[int, int]], seed: int) -> None:
        self.work, self.manifest, self.start = work, manifest, start
        self.book = Book(work / "kills.jsonl")
        self.moments = random.Random(f"{seed}-{len(self.book.lines)}")

    def uninterrupted(self) -> Path:
        """The folder of the run that nobody kills."""
        job = Job.create(self.work / "uninterrupted", self.manifest)
        if not self.book.of("uninterrupted"):
            began = time.monotonic()
            parent, _ = self.start(job.folder)
            _wait(parent)
            if job.state().status != "finished":
                sys.exit(f"the uninterrupted run is {job.state().status}: {job.state().message}")
            self.book.note("uninterrupted", seconds=time.monotonic() - began)
        return job.folder

    def kill_until_finished(self, number: int, most: int, longest: float, end: float) -> None:
        """Finish one job; it is left alone once so many kills have been made, or after the end."""
        job = Job.create(self.work / f"job{number}", self.manifest)
        leftovers: list[psutil.Process] = []
        faults = 0
        while job.state().status != "finished":
            began, wall = time.monotonic(), time.time()
            parent, worker_id = self.start(job.folder)
            worker = psutil.Process(worker_id)
            spare = len(self.book.of("kill")) >= most or began > end
            if spare:
                _wait(parent)
            else:
                self._until_the_moment(worker, EventFollower(job.events_path, only_new=True), longest)
            if _ended(worker):
                _wait(parent)
                if job.state().status != "finished":
                    faults += 1
                    self.book.note("fault", job=number, message=job.state().message)
                    print(f"ended by itself: {job.state().message}", flush=True)
                    if faults == 3:
                        raise SystemExit("the job does not finish")
            else:
                leftovers = self._kill(job, number, parent, worker, wall, leftovers)
            self.book.note("run", job=number, seconds=time.monotonic() - began)
        differs = differences(self.work / "uninterrupted", job.folder)
        self.book.note("job", job=number, differs=differs)
        print(f"job {number} finished, {'NOT EQUAL: ' + ', '.join(differs) if differs else 'equal'}", flush=True)
        if not differs:
            shutil.rmtree(job.folder)

    def _until_the_moment(self, worker: psutil.Process, events: EventFollower, longest: float) -> None:
        """Wait for some time from the start, or, every second time, from the first thing that this run has done.

        Without the latter a machine under load would be killed in its imports again and again and never come further.
        """
        waiting_for_work = self.moments.random() < 0.5
        seconds = self.moments.uniform(0, longest)
        deadline = time.monotonic() + seconds
        while (waiting_for_work or time.monotonic() < deadline) and not _ended(worker):
            time.sleep(0.02)
            if waiting_for_work and any(map(_is_work, events.poll())):
                waiting_for_work, deadline = False, time.monotonic() + seconds

    def _kill(self, job, number, parent, worker, wall, leftovers):  # type: ignore[no-untyped-def]
        """Kill one of those that live and see how the others end, unless the job is resumed at once."""
        trainings = _trainings(worker)
        victims = {"parent": psutil.Process(parent), "worker": worker}
        if trainings:
            victims["trainer"] = self.moments.choice(trainings)
        # Trainings live only in some stages; then they are killed every second time.
        name = self.moments.choice(sorted(victims) + ["trainer"] * (len(victims) == 3))
        # Resuming while the trainings of a killed worker still live is what an impatient person does.
        at_once = name == "worker" and self.moments.random() < 0.5
        stages = [event["stage"] for event in read_events(job.events_path) if event["event"] == "stage"]
        lost, family = _lost(job.folder, wall, trainings), [worker, *_descendants(worker), *leftovers]
        killed = time.monotonic()
        try:
            victims[name].kill()
        except psutil.NoSuchProcess:
            name = "none"
        if at_once:
            _wait(parent)
            family = [process for process in family if not _ended(process)]
            orphans = 0
        else:
            while time.monotonic() - killed < _PATIENCE and (
                not all(map(_ended, family)) or _at_work_in(job.folder)  # what began in the instant of the kill
            ):
                time.sleep(0.02)
            family, orphans = [], len(_at_work_in(job.folder))
            _wait(parent)
        torn = 0
        try:
            job.state()
            read_events(job.events_path)
        except Exception as error:
            torn = 1
            print(f"torn: {error}", flush=True)
        figures = {"lost": round(lost, 2), "ending": None if at_once else round(time.monotonic() - killed, 2)}
        ran, stage = round(time.time() - wall, 1), stages[-1] if stages else "start"
        if name != "none":
            self.book.note(
                "kill",
                job=number,
                victim=name,
                stage=stage,
                ran=ran,
                at_once=at_once,
                orphans=orphans,
                torn=torn,
                **figures,
            )
            count = len(self.book.of("kill"))
            print(f"{count}: {name} after {ran} s in '{stage}', {figures}, orphans {orphans}", flush=True)
        return family


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


_started: dict[int, "subprocess.Popen[bytes]"] = {}


def _wait(parent: int) -> None:
    _started[parent].wait()


def bench_demo(options: Any, start: Callable[[Path], "subprocess.Popen[bytes]"]) -> int:
    """The whole run; the figures so far when it is stopped.

    Args:
        options: Of the command line: kills, seed, work, epochs, iterations, longest, limit.
        start: Starts a parent that starts the job and prints the worker's id.
    """

    def start_one(folder: Path) -> tuple[int, int]:
        parent = start(folder)
        _started[parent.pid] = parent
        said = parent.stdout.readline()  # type: ignore[union-attr]
        if not said:
            raise SystemExit(f"the parent could not start the job in {folder}")
        return parent.pid, int(said)

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    killing = Killing(work, demo_manifest(work, options.epochs, options.iterations), start_one, options.seed)
    book, end = killing.book, time.monotonic() + options.limit
    try:
        killing.uninterrupted()
        print(f"uninterrupted: {book.of('uninterrupted')[0]['seconds']:.0f} s", flush=True)
        while len(book.of("kill")) < options.kills and time.monotonic() < end:
            killing.kill_until_finished(len(book.of("job")), options.kills, options.longest, end)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", flush=True)
    finally:
        for parent in _started.values():
            if parent.poll() is None:
                parent.kill()  # its worker ends with it
    print(book)
    bad = [*book.of("fault"), *(job for job in book.of("job") if job["differs"])]
    bad += [kill for kill in book.of("kill") if kill["torn"] or kill["orphans"]]
    return 1 if bad or not book.of("job") else 0
