"""What each precision mode means for the parts of SAM2."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch

from .attention import Backend

__all__ = ["Arithmetic", "attention_kernel", "computing", "multiplying"]

Arithmetic = Literal["float32", "bfloat16", "bfloat16 products"]


def attention_kernel(precision: str, device: torch.device, wanted: str = "auto") -> tuple[Arithmetic, Backend]:
    """Arithmetic inside memory attention, and the kernel for it.

    ``exact`` is float32, on a CPU in tiles. ``fast`` and ``official`` are bfloat16 with the fused kernel; but where a
    CPU has no bfloat16 matrix unit, ``fast`` keeps float32 tensors and lets oneDNN multiply in bfloat16 if the
    processor can (``bfloat16 products``): it is then never slower than ``exact``.

    Args:
        precision: Of :class:`TffsOptions`.
        device: Where it runs.
        wanted: ``sdpa`` or ``tiled`` overrules the choice of the kernel.
    """
    on_cpu = device.type == "cpu"
    if precision == "exact":
        return "float32", wanted if wanted != "auto" else ("tiled" if on_cpu else "sdpa")
    if precision == "fast" and on_cpu and (wanted == "tiled" or (wanted == "auto" and not _has_matrix_unit())):
        return "bfloat16 products", "tiled"
    return "bfloat16", wanted if wanted != "auto" else "sdpa"


def _has_matrix_unit() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware (AMX) as far as PyTorch can tell."""
    asked = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(asked and asked())


@contextmanager
def multiplying(arithmetic: Arithmetic) -> Iterator[None]:
    """Within, float32 matrix products may be computed from bfloat16 factors, if the arithmetic says so."""
    if arithmetic != "bfloat16 products":
        yield
        return
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def computing(precision: str, device: torch.device, *, one_thread: bool = False) -> Iterator[None]:
    """No gradients; bfloat16 autocast for ``official``; otherwise float32 that is float32 (no TF32 convolutions).

    Args:
        one_thread: With one of PyTorch's threads, as each worker of :func:`~.side_by_side.side_by_side` has: what is
            timed so is what a pair of volumes costs there.
    """
    if precision == "official":
        mode = torch.autocast(device.type, dtype=torch.bfloat16)
    elif device.type == "cuda":
        mode = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    else:
        mode = nullcontext()
    threads = torch.get_num_threads()
    if one_thread and threads > 1:
        torch.set_num_threads(1)
    try:
        with torch.inference_mode(), mode:
            yield
    finally:
        if one_thread and threads > 1:
            torch.set_num_threads(threads)
