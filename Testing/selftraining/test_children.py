"""Child processes: killed, failing, orphaned, and under an interpreter that is a launcher."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from SSLSegLib.messages import MessageError
from SSLSegLib.processes import LIBRARY
from SSLSegLib.selftraining.child_side import event_file
from SSLSegLib.selftraining.children import Child, _on_device, child_environment, run_children
from SSLSegLib.selftraining.errors import SelfTrainingError
from SSLSegLib.selftraining.folders import WorkFolder
from SSLSegLib.selftraining.plan import PlanSpec
from SSLSegLib.selftraining.rounds import self_train
from SSLSegLib.selftraining.trainer import load_checkpoint

from .conftest import TINY_NETWORK

DRIVER = """
import os, psutil, signal, sys
from pathlib import Path
from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.selftraining.options import SelfTrainingOptions
from SSLSegLib.selftraining.rounds import self_train
from SSLSegLib.selftraining.trainer import load_checkpoint
def die(event, **fields):  # when fold 0 has its first epoch behind it: a kill that is never too late
    if event == "metric" and fields.get("fold") == 0:
        print(*[child.pid for child in psutil.Process().children(recursive=True)], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
if __name__ == "__main__":
    cohort, work, options = Cohort.load(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    self_train(cohort, cohort.folder / "results", work, SelfTrainingOptions.model_validate_json(options), progress=die)
"""


def _start(finished, work: Path, folder: Path, **environment: str) -> "subprocess.Popen[bytes]":
    (folder / "driver.py").write_text(DRIVER)
    options = finished.options.model_copy(update={"rounds": 1})
    return subprocess.Popen(
        [sys.executable, folder / "driver.py", finished.cohort.folder / "cohort.json", work, options.model_dump_json()],
        env={**os.environ, "PYTHONPATH": str(LIBRARY), **environment},
        stdout=subprocess.PIPE,
    )


def _wait_for(condition, seconds: float = 500.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_run_killed_in_the_middle_of_a_training_ends_like_an_uninterrupted_one(finished, tmp_path):
    work = finished.copy_planned(tmp_path / "work")
    folder = WorkFolder(work)
    with _start(finished, work, tmp_path) as driver:
        children = [int(pid) for pid in driver.stdout.read().split()]
    assert driver.returncode == -signal.SIGKILL
    _wait_for(lambda: not any(_lives(pid) for pid in children))
    assert (folder.round(1).fold("2d", 0) / "checkpoint_latest.pth").is_file() or (
        folder.round(1).fold("2d", 0) / "checkpoint_final.pth"
    ).is_file()
    assert not folder.round(1).report.exists()

    events = []
    options = finished.options.model_copy(update={"rounds": 1})
    outcome = self_train(
        finished.cohort,
        finished.results,
        work,
        options,
        progress=lambda event, **fields: events.append((event, fields)),
    )
    epochs = [fields["epoch"] for event, fields in events if event == "metric" and fields.get("fold") == 0]
    assert epochs in ([2], [])  # the first epoch is not trained again
    whole, resumed = finished.outcome.rounds[0], outcome.rounds[0]
    assert resumed.agreement == whole.agreement
    assert resumed.changes == whole.changes
    for fold in (0, 1):
        weights = [
            load_checkpoint(WorkFolder(run).round(1).fold("2d", fold) / "checkpoint_final.pth")["network_weights"]
            for run in (work, finished.work)
        ]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
    for case in ("c2", "c3", "c4"):
        name = f"rounds/1/predictions/{case}.nii.gz"
        assert (work / name).read_bytes() == (finished.work / name).read_bytes()


def test_planning_works_where_sys_executable_is_a_launcher(finished, tmp_path):
    """Stands for PythonSlicer: the launcher closes the pipes that spawned workers need, so they never get to work."""
    launcher = tmp_path / "Launcher"
    closing = 'for n in {3..63}; do eval "exec $n>&-"; done'
    launcher.write_text(f'#!/bin/bash\necho used >> "{tmp_path}/launched"\n{closing}\nexec "{sys.executable}" "$@"\n')
    launcher.chmod(launcher.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "sitecustomize.py").write_text(
        f"import sys\nsys.executable = {str(launcher)!r}\n"
        "import multiprocessing.spawn\nmultiprocessing.spawn.set_executable(sys.executable)\n"
    )
    work = WorkFolder(tmp_path / "work")
    work.raw.parent.mkdir(parents=True)
    work.raw.symlink_to(WorkFolder(finished.work).raw)
    work.preprocessed.mkdir()
    spec = PlanSpec(
        work=work.path, configuration="2d", network=TINY_NETWORK, processes=1, interpreter=Path(sys.executable)
    )
    environment = child_environment(
        threads=1, workers=1, nnUNet_raw=work.raw, nnUNet_preprocessed=work.preprocessed, nnUNet_results=work.path
    )
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environment["PYTHONPATH"]])
    child = Child("planning", "SSLSegLib.selftraining.plan", spec, tmp_path, "plan", environment)
    run_children([child], ["cpu"], Path(sys.executable), lambda child, event: None)
    assert work.planned.is_file()
    assert not (tmp_path / "launched").exists()


def _child(tmp_path: Path, name: str, source: str) -> Child:
    """A stand-in for a fold: a module of a few lines that reads the specification and writes events."""
    (tmp_path / f"{name}.py").write_text(source)
    spec = PlanSpec(work=tmp_path, configuration="2d", network=TINY_NETWORK, processes=1, interpreter=sys.executable)
    paths = os.pathsep.join([str(tmp_path), str(LIBRARY)])
    return Child(name, name, spec, tmp_path, name, {"PYTHONPATH": paths})


FAILS = """
from SSLSegLib.selftraining.child_side import run_child
from SSLSegLib.selftraining.plan import PlanSpec
def work(spec, tell):
    raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
run_child(PlanSpec, work)
"""
SLEEPS = FAILS.replace(
    'raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")',
    'import os, time; tell("metric", pid=os.getpid()); time.sleep(600)',
)
WAITS = """
import time
from pathlib import Path
while not Path(__file__).with_name("sleeps.events.jsonl").is_file():  # until the other one has said who it is
    time.sleep(0.1)
time.sleep(1)
"""
VANISHES = FAILS.replace('raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")', "import os; os._exit(0)")


def test_a_failing_child_says_what_to_do_and_the_others_are_stopped(tmp_path):
    pids = []

    def hear(child, event):
        pids.append(event["pid"])

    children = [_child(tmp_path, "sleeps", SLEEPS), _child(tmp_path, "fails", WAITS + FAILS)]
    with pytest.raises(SelfTrainingError, match=r"Fails failed: RuntimeError: CUDA out of memory.*2d"):
        run_children(children, ["cpu", "cpu"], Path(sys.executable), hear)
    _wait_for(lambda: not psutil.pid_exists(pids[0]), 60)
    assert "Traceback" in (tmp_path / "fails.log").read_text()


def test_a_line_that_a_killed_child_left_half_written_does_not_spoil_what_the_next_one_says(tmp_path):
    told = []
    child = _child(tmp_path, "killed", "")
    event_file(child.events)("metric", number=1)
    child.tell(lambda child, event: told.append(event["number"]))
    with open(child.events, "a") as log:
        log.write('{"schema_version": 1, "event": "met')
    child.tell(lambda child, event: told.append(event["number"]))
    event_file(child.events)("metric", number=2)
    child.tell(lambda child, event: told.append(event["number"]))
    assert told == [1, 2]


@pytest.mark.parametrize(
    "line", ["noise of a library", '{"event": "ended"}', '{"schema_version": 1, "event": "erase"}']
)
def test_a_line_that_is_no_message_is_refused(tmp_path, line):
    child = _child(tmp_path, "noisy", "")
    child.events.write_text(line + "\n")
    with pytest.raises(MessageError, match="damaged"):
        child.tell(lambda child, event: None)


def test_a_child_that_ends_without_a_word_is_a_failure(tmp_path):
    with pytest.raises(SelfTrainingError, match="without a word"):
        run_children([_child(tmp_path, "vanishes", VANISHES)], ["cpu"], Path(sys.executable), lambda *_: None)


def test_an_error_of_the_listener_stops_the_child(tmp_path):
    pids = []

    def cancel(child, event):
        pids.append(event["pid"])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_children([_child(tmp_path, "sleeps", SLEEPS)], ["cpu"], Path(sys.executable), cancel)
    _wait_for(lambda: not psutil.pid_exists(pids[0]), 60)


def test_what_a_child_said_before_it_was_stopped_is_heard(tmp_path):
    """A resumed fold does not train an epoch again whose end was written and not yet read: its point would be lost."""
    pids = []
    child = _child(tmp_path, "sleeps", SLEEPS)

    def wanted():
        return not (child.events.is_file() and child.events.read_bytes().endswith(b"\n"))

    with pytest.raises(SelfTrainingError, match="no longer wanted"):
        run_children([child], ["cpu"], Path(sys.executable), lambda _, event: pids.append(event["pid"]), wanted=wanted)
    assert pids == [child.process.pid]
    assert not _lives(pids[0])


def test_each_gpu_gets_one_fold_at_a_time(tmp_path):
    from SSLSegLib.selftraining.options import SelfTrainingOptions
    from SSLSegLib.selftraining.run import _slots

    assert _slots(SelfTrainingOptions.of("standard", devices=("cuda:0", "cuda:1")), 5) == ["cuda:0", "cuda:1"]
    assert _slots(SelfTrainingOptions.of("quick", devices=("cpu",), folds_per_device=2), 5) == ["cpu", "cpu"]


def test_a_gpu_is_one_of_those_that_this_process_may_use(tmp_path, monkeypatch):
    child = _child(tmp_path, "unused", "")
    _on_device(child, "cuda:1")
    assert child.environment["CUDA_VISIBLE_DEVICES"] == "1"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    _on_device(child, "cuda:1")
    assert child.environment["CUDA_VISIBLE_DEVICES"] == "5"


def test_the_specification_of_a_child_is_plain_json(finished):
    told = json.loads((WorkFolder(finished.work).round(1).path / "fold_0.json").read_text())
    assert told["device"] == "cpu"
    assert told["seed_names"] == [42, "round 1", 0]
