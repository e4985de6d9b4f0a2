"""What the tests of the job room share: a small kind of job and a way to run it in a real child process."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.manifest import Manifest
from SSLSegLib.jobs.process import start_job
from SSLSegLib.processes import LIBRARY

HERE = Path(__file__).parent


def _register_counting() -> None:
    if "counting_worker" not in sys.modules:
        specification = importlib.util.spec_from_file_location("counting_worker", HERE / "counting_worker.py")
        module = importlib.util.module_from_spec(specification)
        sys.modules["counting_worker"] = module
        specification.loader.exec_module(module)


_register_counting()


@pytest.fixture
def make_job(tmp_path):
    def make(name="job", seed=42, **parameters):
        return Job.create(tmp_path / name, Manifest(kind="counting", seed=seed, parameters=parameters))

    return make


@pytest.fixture
def start():
    started = []

    def start_counting(job, **options):
        paths = os.pathsep.join([str(LIBRARY), str(HERE)])
        process = start_job(job.folder, worker="counting_worker", environment={"PYTHONPATH": paths}, **options)
        started.append(process)
        return process

    yield start_counting
    for process in started:
        if process.running:
            process.cancel(patience=0.1)


@pytest.fixture
def start_dying():
    """Start a job in a worker that is killed at a certain moment, see ``dying_worker.py``."""

    def start_dying(job, *, after):
        paths = os.pathsep.join([str(LIBRARY), str(HERE)])
        return start_job(job.folder, worker="dying_worker", environment={"PYTHONPATH": paths, "DIES_AFTER": after})

    return start_dying


def _load(name: str) -> None:
    if name not in sys.modules:
        specification = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
        module = importlib.util.module_from_spec(specification)
        sys.modules[name] = module
        specification.loader.exec_module(module)


for _name in ("small_job", "small_slurm"):
    _load(_name)


@pytest.fixture(scope="session")
def small_manifest(tmp_path_factory):
    return sys.modules["small_job"].small_manifest(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="session")
def small_finished(tmp_path_factory, small_manifest):
    """The small job run here without interruption: what every other way must equal."""
    from SSLSegLib.jobs.runner import run_job

    job = Job.create(tmp_path_factory.mktemp("small-finished") / "job", small_manifest)
    assert run_job(job).status == "finished"
    return job
