"""A SLURM of one node on this machine, with its own configuration, ports and files, for tests and for trying things.

    python one_node_slurm.py FOLDER        starts it, prints the environment to set, ends it on Ctrl+C

Needs munged, slurmctld and slurmd (Debian and Ubuntu: ``apt install slurm-wlm munge``), no systemd and no root.
"""

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
SECONDS = 60  # to come up, and to end

CONFIGURATION = """\
ClusterName=onenode
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={control}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=3
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def find(program: str) -> str | None:
    """Where a program of SLURM is; the daemons are in folders that a user's path may lack."""
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


def missing() -> list[str]:
    """The programs that are not here."""
    return [program for program in PROGRAMS if find(program) is None]


@contextmanager
def one_node_slurm(folder: Path, *, cpus: int = 2, memory: int = 4000) -> Iterator[dict[str, str]]:
    """Run the daemons, wait until the node is idle, and end every job and daemon afterwards.

    Args:
        folder: For all files; short, since a socket's path may have about 100 letters.
        cpus: What the node offers, whatever the machine has.
        memory: MB.

    Yields:
        What has to be in the environment of whoever calls sbatch.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in ("state", "spool"):
        (folder / name).mkdir(exist_ok=True)
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    host, configuration = socket.gethostname().split(".")[0], folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(
            host=host,
            user=getpass.getuser(),
            folder=folder,
            control=_free_port(),
            node=_free_port(),
            cpus=cpus,
            memory=memory,
        )
    )
    environment = {"SLURM_CONF": str(configuration)}
    daemons = {
        "munged": [
            *("--foreground", "--force", "--num-threads=1", f"--key-file={key}", f"--socket={folder}/munge.socket"),
            *(f"--pid-file={folder}/munged.pid", f"--log-file={folder}/munged.log", f"--seed-file={folder}/munge.seed"),
        ],
        "slurmctld": ["-D", "-c", "-f", str(configuration)],
        "slurmd": ["-D", "-c", "-f", str(configuration), "-N", host],
    }
    running: list[subprocess.Popen[bytes]] = []
    try:
        for name, arguments in daemons.items():
            with (folder / f"{name}.out").open("wb") as said:
                running.append(
                    subprocess.Popen(
                        [find(name) or name, *arguments],
                        stdout=said,
                        stderr=said,
                        env={**os.environ, **environment},
                        start_new_session=True,
                    )
                )
            time.sleep(0.5)
        _wait_until_idle(environment, running, folder)
        yield environment
    finally:
        subprocess.run(
            ["scancel", f"--user={getpass.getuser()}"], env={**os.environ, **environment}, timeout=SECONDS, check=False
        )
        _wait_for(lambda: not jobs(environment))
        for daemon in reversed(running):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(SECONDS)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def jobs(environment: dict[str, str], state: str = "PENDING,RUNNING,COMPLETING") -> list[str]:
    """Numbers of all SLURM jobs that are queued, running or about to end."""
    return ask(["squeue", "--noheader", "--format=%i", f"--states={state}"], environment).split()


def ask(command: list[str], environment: dict[str, str]) -> str:
    """What a program of SLURM prints."""
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=SECONDS, check=True
    ).stdout


def _wait_until_idle(environment: dict[str, str], running: list[subprocess.Popen[bytes]], folder: Path) -> None:
    def idle() -> bool:
        for daemon in running:
            if daemon.poll() is not None:
                logs = "\n".join(path.read_text() for path in sorted(folder.glob("*.out")))
                raise RuntimeError(f"{daemon.args[0]} ended with {daemon.returncode}:\n{logs}")  # type: ignore[index]
        try:
            return ask(["sinfo", "--noheader", "--format=%T"], environment).strip() == "idle"
        except subprocess.CalledProcessError:
            return False

    if not _wait_for(idle):
        raise RuntimeError(f"The node did not become idle; see the logs in {folder}.")


def _wait_for(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.5)
    return False


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the daemons, too
    with contextlib.suppress(KeyboardInterrupt), one_node_slurm(Path(sys.argv[1]).resolve()) as settings:
        print(*(f"export {name}={value}" for name, value in settings.items()), sep="\n", flush=True)
        signal.pause()
