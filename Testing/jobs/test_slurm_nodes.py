"""A SLURM of two nodes, each with a host name and a network of its own, one worker on each."""

import tempfile
from pathlib import Path

import pytest
import small_job
import small_slurm

from SSLSegLib.files import write_json
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.runner import run_job

NODES = {"node1", "node2"}


@pytest.fixture
def slurm(monkeypatch):
    if reason := small_slurm.missing(nodes=2):
        pytest.skip(reason)
    with (
        tempfile.TemporaryDirectory(prefix="slurm-") as folder,
        small_slurm.small_slurm(Path(folder), nodes=2, cpus=1) as running,
    ):
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


def test_two_nodes_share_the_cases_and_when_one_is_lost_the_other_ends_the_work_with_the_bytes_of_a_local_run(
    tmp_path, slurm
):
    manifest = small_job.small_manifest(tmp_path / "inputs", unlabelled=8, slices=20)
    here, there = (Job.create(tmp_path / name, manifest) for name in ("here", "there"))
    assert run_job(here).status == "finished"
    there.scheduler = f"slurm:{tmp_path / 'slurm.json'}"
    write_json(
        tmp_path / "slurm.json",
        {
            "workers": 2,
            "cores": 1,
            "memory": "1500MB",
            "walltime": "00:20:00",
            "interface": slurm.interface,
            "start_timeout": 300,
        },
    )
    machines, lost = [], []

    def lose_a_node_once_both_have_done_a_case(event, **fields):
        if event == "result":
            machines.append(fields["machine"])
            if set(machines) == NODES and not lost:
                lost.append(len(machines))
                slurm.lose("node2")

    assert run_job(there, lose_a_node_once_both_have_done_a_case).status == "finished"
    assert set(machines) == NODES, "one node did all of it"
    assert lost[0] < 8, "it was lost too late"
    assert machines[-1] == "node1"
    assert small_job.contents(there) == small_job.contents(here)
