"""A SLURM of one or more nodes on this machine, with its own configuration, ports and files, for tests and for trying.

    python small_slurm.py FOLDER [NODES]   starts it, prints the environment to set, ends it on Ctrl+C

One node is this machine itself: no systemd and no root is needed. More than one are network namespaces with host names
and addresses of their own on a bridge, which share this machine's disk; they need Linux and root.

Needs munged, slurmctld and slurmd (Debian and Ubuntu: ``apt install slurm-wlm munge``).
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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
NETWORK_PROGRAMS = ("ip", "unshare", "nsenter")
SECONDS = 60  # to come up, and to end

CONFIGURATION = """\
ClusterName=small
SlurmctldHost={head}({address})
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={control}
SlurmdPort={port}
SlurmdTimeout=20
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
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
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={name} NodeAddr={address} CPUs={cpus} RealMemory={memory} State=UNKNOWN\n"


@dataclass(frozen=True)
class SmallSlurm:
    """What is known of a running SLURM.

    Args:
        environment: What has to be in the environment of whoever calls sbatch.
        folder: Of its files.
        interface: The network that nodes and this machine share, under one name; None where there is one node.
        daemons: Node -> its slurmd, whose process also stands for the node's network.
    """

    environment: dict[str, str]
    folder: Path
    interface: str | None
    daemons: "dict[str, subprocess.Popen[bytes]]"

    def ask(self, *command: str) -> str:
        """What a program of SLURM prints."""
        return subprocess.run(
            command,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        ).stdout

    def jobs(self, state: str = "PENDING,RUNNING,COMPLETING") -> list[str]:
        """Numbers of all SLURM jobs that are queued, running or about to end."""
        return self.ask("squeue", "--noheader", "--format=%i", f"--states={state}").split()

    def lose(self, node: str) -> None:
        """A node goes down as by a cut power line: its network is silent first, then all its processes are gone."""
        daemon = self.daemons[node]
        _run("nsenter", f"--target={daemon.pid}", "--net", "ip", "link", "set", self.interface or "lo", "down")
        for process in _processes_in_network_of(daemon.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        daemon.wait(SECONDS)


def missing(nodes: int = 1) -> str | None:
    """Why there can be no such SLURM here."""
    wanted = PROGRAMS + (NETWORK_PROGRAMS if nodes > 1 else ())
    if absent := [program for program in wanted if find(program) is None]:
        return f"SLURM is not installed here: no {', '.join(absent)} (apt install slurm-wlm munge)"
    if nodes > 1 and os.geteuid() != 0:
        return "nodes with a network of their own need root"
    if nodes > 1 and subprocess.run(["unshare", "--net", "--uts", "true"], capture_output=True, check=False).returncode:
        return "nodes with a network of their own are not allowed here"
    return None


def find(program: str) -> str | None:
    """Where a program of SLURM is; the daemons are in folders that a user's path may lack."""
    return shutil.which(program, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


@contextmanager
def small_slurm(folder: Path, *, nodes: int = 1, cpus: int = 2, memory: int = 4000) -> Iterator[SmallSlurm]:
    """Run the daemons, wait until all nodes are idle, and end every job and daemon afterwards.

    Args:
        folder: For all files; short, since a socket's path may have about 100 letters.
        nodes: This machine, or several with a network each.
        cpus: What a node offers, whatever the machine has.
        memory: MB of a node.

    Yields:
        The running SLURM.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "state").mkdir(exist_ok=True)
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    head, configuration = socket.gethostname().split(".")[0], folder / "slurm.conf"
    with ExitStack() as stack:
        network = stack.enter_context(_network()) if nodes > 1 else None
        names = [f"node{number}" for number in range(1, nodes + 1)] if network else [head]
        addresses = [network.address(number + 2) for number in range(nodes)] if network else ["127.0.0.1"]
        settings = CONFIGURATION.format(
            head=head,
            address=network.address(1) if network else "127.0.0.1",
            user=getpass.getuser(),
            folder=folder,
            control=_free_port(),
            port=_free_port(),
        )
        for name, address in zip(names, addresses, strict=True):
            settings += NODE.format(name=name, address=address, cpus=cpus, memory=memory)
            (folder / f"spool-{name}").mkdir(exist_ok=True)
        configuration.write_text(settings)
        slurm = SmallSlurm({"SLURM_CONF": str(configuration)}, folder, network.name if network else None, {})

        def start(log: str, *command: str, **how: int) -> "subprocess.Popen[bytes]":
            with (folder / f"{log}.out").open("wb") as said:
                daemon = subprocess.Popen(
                    command,
                    stdout=said,
                    stderr=said,
                    env={**os.environ, **slurm.environment},
                    start_new_session=True,
                    **how,
                )
            stack.callback(_end, daemon)
            return daemon

        munge = {
            "socket": "munge.socket",
            "pid-file": "munged.pid",
            "log-file": "munged.log",
            "seed-file": "munge.seed",
        }
        files = [f"--{option}={folder}/{file}" for option, file in munge.items()]
        others = [
            start("munged", find("munged"), "--foreground", "--force", "--num-threads=1", f"--key-file={key}", *files)
        ]
        time.sleep(0.5)
        others.append(start("slurmctld", find("slurmctld"), "-D", "-c", "-f", str(configuration)))
        time.sleep(0.5)
        for name, address in zip(names, addresses, strict=True):
            command = [find("slurmd"), "-D", "-c", "-f", str(configuration), "-N", name]
            if network:
                slurm.daemons[name] = start(name, *network.waiting(name, command), stdin=subprocess.PIPE)
                network.give(slurm.daemons[name], address)
            else:
                slurm.daemons[name] = start(name, *command)
        stack.callback(_cancel_all, slurm)
        _wait_until_idle(slurm, others)
        yield slurm


def _cancel_all(slurm: SmallSlurm) -> None:
    with contextlib.suppress(subprocess.SubprocessError):
        slurm.ask("scancel", f"--user={getpass.getuser()}")
        _wait_for(lambda: not slurm.jobs(), 20)  # those of a node that was lost stay


def _end(daemon: "subprocess.Popen[bytes]") -> None:
    daemon.terminate()
    try:
        daemon.wait(SECONDS)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _wait_until_idle(slurm: SmallSlurm, others: "list[subprocess.Popen[bytes]]") -> None:
    def idle() -> bool:
        for daemon in (*others, *slurm.daemons.values()):
            if daemon.poll() is not None:
                logs = "\n".join(path.read_text() for path in sorted(slurm.folder.glob("*.out")))
                raise RuntimeError(f"{daemon.args} ended with {daemon.returncode}:\n{logs}")
        try:
            return set(slurm.ask("sinfo", "--noheader", "--Node", "--format=%T").split()) == {"idle"}
        except subprocess.CalledProcessError:
            return False

    if not _wait_for(idle):
        raise RuntimeError(f"The nodes did not become idle; see the logs in {slurm.folder}.")


def _wait_for(true: Callable[[], bool], seconds: float = SECONDS) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.5)
    return False


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


# --- several nodes -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Network:
    """A bridge of this machine; inside of a node its end of the cable has the bridge's name.

    Args:
        name: Of the bridge.
        prefix: The first three numbers of all addresses.
    """

    name: str
    prefix: str

    def address(self, number: int) -> str:
        return f"{self.prefix}.{number}"

    def waiting(self, host: str, command: list[str]) -> list[str]:
        """A command that runs under a host name and with no network, once it reads a line."""
        return ["unshare", "--net", "--uts", "sh", "-c", f'hostname {host}; read _; exec "$@"', "sh", *command]

    def give(self, process: "subprocess.Popen[bytes]", address: str) -> None:
        """Connect a waiting process, and let it go on."""
        here, there = os.readlink("/proc/self/ns/net"), Path(f"/proc/{process.pid}/ns/net")
        if not _wait_for(lambda: os.readlink(there) != here):
            raise RuntimeError("There is no network of its own.")
        end = f"{self.name}-{address.rpartition('.')[2]}"
        cable = ("type", "veth", "peer", "name", self.name, "netns", str(process.pid))
        _run("ip", "link", "add", end, *cable)
        _run("ip", "link", "set", end, "master", self.name, "up")
        inside = ("nsenter", f"--target={process.pid}", "--net", "ip")
        _run(*inside, "addr", "add", f"{address}/24", "dev", self.name)
        _run(*inside, "link", "set", "lo", "up")
        _run(*inside, "link", "set", self.name, "up")
        _run(*inside, "route", "add", "default", "via", self.address(1))
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()


@contextmanager
def _network() -> Iterator[_Network]:
    number = secrets.randbelow(250)
    network = _Network(f"sslseg{number}", f"10.203.{number}")
    _run("ip", "link", "add", network.name, "type", "bridge")
    try:
        _run("ip", "addr", "add", f"{network.address(1)}/24", "dev", network.name)
        _run("ip", "link", "set", network.name, "up")
        yield network
    finally:
        _run("ip", "link", "del", network.name)


def _processes_in_network_of(process: int) -> list[int]:
    network, found = os.readlink(f"/proc/{process}/ns/net"), []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and os.readlink(entry / "ns" / "net") == network:
                found.append(int(entry.name))
    return found


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=SECONDS)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the daemons, too
    with (
        contextlib.suppress(KeyboardInterrupt),
        small_slurm(Path(sys.argv[1]).resolve(), nodes=int((*sys.argv, 1)[2])) as slurm,
    ):
        print(*(f"export {name}={value}" for name, value in slurm.environment.items()), sep="\n", flush=True)
        signal.pause()
