"""Certificates that let Dask's processes know each other, so that nobody else can talk to them or listen."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from SSLSegLib.errors import JobError

if TYPE_CHECKING:
    from distributed import Security

__all__ = ["Certificate", "throwaway_certificate"]

_DAYS = 365  # as Dask's own temporary certificates; a SLURM job may wait long in the queue
_SECONDS = 30  # for openssl
_CONFIGURATION = "[req]\ndistinguished_name = name\n[name]\n"  # the machine's own may be missing, or ask questions


@dataclass(frozen=True)
class Certificate:
    """Files in PEM format.

    Args:
        authority: The certificate that has signed those of all who take part.
        certificate, key: Of this process.
    """

    authority: Path
    certificate: Path
    key: Path

    def security(self) -> "Security":
        """For a scheduler, its workers and its clients; nobody without such a certificate is let in."""
        from distributed import Security

        own = {
            f"tls_{role}_{part}": str(path)
            for role in ("client", "scheduler", "worker")
            for part, path in (("cert", self.certificate), ("key", self.key))
        }
        return Security(require_encryption=True, tls_ca_file=str(self.authority), **own)


@contextmanager
def throwaway_certificate(folder: Path) -> Iterator[Certificate]:
    """A certificate that is its own authority, for one run; the files are deleted at the end.

    Dask can make one itself (``Security.temporary``), but needs the package ``cryptography`` for it.

    Args:
        folder: Where a folder for the files is made that only this user can read; workers must see it, too. One of a
            run that was killed is deleted, so no two runs may share it.

    Raises:
        JobError: There is no openssl here, or it fails.
    """
    program = shutil.which("openssl")
    remedy = 'Install openssl or, where everybody on the network is trusted, put "tls": false into the configuration.'
    if program is None:
        raise JobError("openssl, which makes certificates, is not on this machine's path.", remedy=remedy)
    for left in folder.glob("tls-*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="tls-", dir=folder, ignore_cleanup_errors=True) as own:  # network disks
        made = Certificate(*(Path(own) / name for name in ("certificate.pem", "certificate.pem", "key.pem")))
        settings = Path(own) / "openssl.cnf"
        settings.write_text(_CONFIGURATION)
        command = [program, "req", "-config", str(settings), "-x509", "-subj", "/CN=sslseg", "-days", str(_DAYS)]
        command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-out", str(made.certificate), "-keyout", str(made.key)]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        if answer.returncode:
            raise JobError(f"openssl made no certificate: {answer.stderr.strip()[-300:]}", remedy=remedy)
        made.key.chmod(0o600)
        yield made
