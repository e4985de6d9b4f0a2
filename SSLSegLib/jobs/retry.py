"""When memory runs out: say so, and try again with less, in steps that do not change what is computed."""

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from SSLSegLib.errors import JobError
from SSLSegLib.progress import Progress

__all__ = ["Attempt", "is_out_of_memory", "retry_smaller", "smaller"]

Result = TypeVar("Result")

_MOST_CHAINS = {"cuda": 32, "mps": 4, "cpu": 4}  # where the engine starts by itself


@dataclass(frozen=True)
class Attempt:
    """How much memory a run may take.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        batch: Chains that go through the network together; None leaves it to the engine.
        features_on_disk: Image features of the case in hand lie in files rather than in memory.
    """

    device: str
    batch: int | None = None
    features_on_disk: bool = False

    def in_words(self) -> str:
        """For a warning."""
        chains = f"{self.batch} chain{'s' * (self.batch != 1)} at a time" if self.batch else "chains as by default"
        where = "features on disk" if self.features_on_disk else "features in memory"
        return f"{chains}, {where}, on {self.device}"


def smaller(attempt: Attempt, *, cpu_allowed: bool = False) -> Attempt | None:
    """The next attempt with less memory: a quarter of the chains down to one, then features on disk, then the CPU.

    None where nothing smaller is left. The CPU comes last and only where it is allowed: it is slower by far.
    """
    kind = attempt.device.split(":")[0]
    chains = attempt.batch or _MOST_CHAINS.get(kind, 4)
    if chains > 1:
        return replace(attempt, batch=max(chains // 4, 1))
    if not attempt.features_on_disk:
        return replace(attempt, features_on_disk=True)
    if kind != "cpu" and cpu_allowed:
        return Attempt("cpu", batch=1, features_on_disk=True)
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the computer or of its GPU does not suffice."""
    if isinstance(error, MemoryError):
        return True
    said = str(error)
    # torch.OutOfMemoryError is a RuntimeError; on the CPU and on Apple's GPU there is no class of its own.
    return isinstance(error, RuntimeError) and any(
        words in said for words in ("out of memory", "not enough memory", "can't allocate memory", "CUDNN_STATUS_ALLOC")
    )


def retry_smaller(
    work: Callable[[Attempt], Result], first: Attempt, progress: Progress, *, cpu_allowed: bool = False
) -> Result:
    """Run the work, with less and less memory for as long as it runs out of it.

    Args:
        work: Given an attempt; what it has finished before must not be done again when it is called again.
        first: The first attempt.
        progress: Told a ``warning`` before each further attempt.
        cpu_allowed: Whether the CPU may take over in the end.

    Raises:
        JobError: Memory did not suffice for the smallest attempt either.
    """
    attempt = first
    while True:
        try:
            return work(attempt)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            logging.getLogger("SSLSegLib").warning("Out of memory (%s): %s", attempt.in_words(), str(error))
            following = smaller(attempt, cpu_allowed=cpu_allowed)
            if following is None:
                raise _nothing_smaller(attempt, cpu_allowed) from error
        _give_back()  # outside the handler, whose traceback keeps every tensor of the failed attempt alive
        progress("warning", message=f"The memory of {attempt.device} ran out; going on with {following.in_words()}.")
        attempt = following


def _nothing_smaller(attempt: Attempt, cpu_allowed: bool) -> JobError:
    on_gpu = not attempt.device.startswith("cpu")
    remedy = "Close other programs, use --preset fast or smaller weights, or crop the scans"
    if on_gpu and not cpu_allowed:
        remedy += "; or allow the CPU to take over with --cpu-if-needed, or use --device cpu"
    return JobError(
        f"The memory of {attempt.device} does not suffice, not even with {attempt.in_words()}.",
        remedy=f"{remedy}. Finished cases are kept.",
    )


def _give_back() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
