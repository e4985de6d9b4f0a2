"""Trainings on a real LocalCluster: stopped when nobody wants them any more, and their failures told.

That their results are those of a local run stands in ``test_ssl_medsam2.py``.
"""

import os
import sys
import time
from pathlib import Path

import psutil
import pytest
from pydantic import BaseModel

from SSLSegLib.errors import JobError
from SSLSegLib.jobs.cluster_folds import ClusterTrainer, fold_trainer
from SSLSegLib.progress import silent
from SSLSegLib.selftraining.children import Child, run_children
from SSLSegLib.selftraining.errors import SelfTrainingError

STAND_IN = """
import os, time
from pathlib import Path
from pydantic import BaseModel
from SSLSegLib.selftraining.child_side import run_child
class Spec(BaseModel):
    interpreter: Path
    device: str = ""
def work(spec, tell):
    tell("metric", pid=os.getpid(), device=spec.device)
    {does}
run_child(Spec, work)
"""


class Spec(BaseModel):
    interpreter: Path
    device: str = ""


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory):
    """Modules that stand for a fold: workers find them because they are started with this path."""
    folder = tmp_path_factory.mktemp("stand-ins")
    for name, does in {"sleeps": "time.sleep(600)", "fails": "raise ValueError('no')", "ends": "pass"}.items():
        (folder / f"stand_in_{name}.py").write_text(STAND_IN.format(does=does))
    return folder


@pytest.fixture(scope="module")
def client(stand_ins):
    import distributed

    with pytest.MonkeyPatch.context() as during:
        during.setenv("PYTHONPATH", str(stand_ins))
        cluster = distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=None, memory_limit=None
        )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        # Classes of a test file are unknown to a worker, so this one goes along by value.
        import cloudpickle

        cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield client
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def child(folder: Path, name: str) -> Child:
    return Child(f"fold {name}", f"stand_in_{name}", Spec(interpreter=sys.executable), folder, name, {})


def lives(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_training_that_is_cancelled_is_stopped_on_its_worker(client, tmp_path):
    pids = []

    def cancel(child, event):
        pids.append(event["pid"])
        assert pids[0] != os.getpid()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ClusterTrainer(client, silent)([child(tmp_path, "sleeps")], ["cpu"], Path("/no/python"), cancel)
    wait_for(lambda: not lives(pids[0]))


def test_a_training_that_fails_says_why(client, tmp_path):
    heard = []
    with pytest.raises(SelfTrainingError, match="Fold fails failed: ValueError: no"):
        ClusterTrainer(client, silent)(
            [child(tmp_path, "fails")], ["cuda:3"], Path("/no/python"), lambda _, event: heard.append(event)
        )
    assert heard[0]["device"] == "cuda", "a worker uses the device it was given"


def test_trainings_that_end_are_not_heard_of_any_more(client, tmp_path):
    heard = []
    children = [child(tmp_path / name, "ends") for name in ("one", "two")]
    for each in children:
        each.folder.mkdir()
    ClusterTrainer(client, silent)(
        children, ["cpu"], Path("/no/python"), lambda each, _: heard.append(each.folder.name)
    )
    assert sorted(heard) == ["one", "two"]
    with pytest.raises(JobError, match="no folder"):
        ClusterTrainer(client, silent)([child(tmp_path / "not-shared", "ends")], ["cpu"], Path("/no"), heard.append)


def test_without_a_cluster_folds_are_trained_here_and_on_one_data_are_not_sent(tmp_path):
    with fold_trainer("local", ("cpu", "cuda:1"), 2, silent, tmp_path) as (devices, trainer):
        assert (devices, trainer) == (("cpu", "cuda:1"), run_children)
    with pytest.raises(JobError, match="share"), fold_trainer("dask://head:1?data=send", ("cpu",), 2, silent, tmp_path):
        pass
