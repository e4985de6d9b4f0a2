"""What a hostile input must not do: hang, allocate without bound, write elsewhere, raise anything unexpected."""

import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from hypothesis import strategies as st

from SSLSegLib.errors import SSLSegError

__all__ = ["Format", "Hang", "try_input"]

SECONDS = 60  # generous on a loaded machine; an endless read takes longer than any limit
MEMORY = 2**30  # bytes of address space that reading one small file may ask for


class Hang(BaseException):
    """Reading took too long."""


@dataclass(frozen=True)
class Format:
    """A kind of input: how to make hostile ones, and what reads them.

    Args:
        name: In tables.
        contents: Draws the bytes of a file.
        read: Given an empty folder and the bytes; writes them where they belong and reads them as the product would.
            Checks of its own are plain asserts.
    """

    name: str
    contents: st.SearchStrategy[bytes]
    read: Callable[[Path, bytes], None]


def try_input(format_: Format, content: bytes) -> bool:
    """Read one input under guard; whether it was accepted.

    Raises:
        AssertionError: Whatever a hostile input must not be able to do has happened.
    """
    with tempfile.TemporaryDirectory(prefix="sslseg-fuzz-") as temporary:
        outer = Path(temporary)
        inner, canary = outer / "in", outer / "canary"
        inner.mkdir()
        canary.write_text("alive")
        accepted = True
        try:
            with _limits():
                format_.read(inner, content)
        except SSLSegError as error:
            accepted, words = False, str(error)
        assert accepted or words, "an error without words"
        assert sorted(path.name for path in outer.iterdir()) == ["canary", "in"], "something was written outside"
        assert canary.read_text() == "alive", "a file outside was changed"
        return accepted


@contextmanager
def _limits() -> Iterator[None]:
    def ring(*_: object) -> None:
        raise Hang(f"not finished after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + MEMORY, hard))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
