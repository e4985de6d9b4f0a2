"""What each precision mode means for the parts of SAM2."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal

import torch

__all__ = ["Arithmetic", "attention_arithmetic", "computing", "multiplying"]

Arithmetic = Literal["float32", "bfloat16", "bfloat16 products"]


def attention_arithmetic(precision: str, device: torch.device) -> Arithmetic:
    """Arithmetic inside memory attention.

    ``float32`` for ``exact``. Else ``bfloat16`` tensors, except that ``fast`` on a CPU keeps float32 tensors and lets
    oneDNN multiply in bfloat16 and sum in float32 (``bfloat16 products``): exponentials of float32 are cheaper there
    than those of bfloat16, and a processor without bfloat16 units just computes in float32.
    """
    if precision == "exact":
        return "float32"
    return "bfloat16 products" if precision == "fast" and device.type == "cpu" else "bfloat16"


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
def computing(precision: str, device: torch.device) -> Iterator[None]:
    """No gradients; bfloat16 autocast for ``official``; otherwise float32 that is float32 (no TF32 convolutions)."""
    if precision == "official":
        mode = torch.autocast(device.type, dtype=torch.bfloat16)
    elif device.type == "cuda":
        mode = torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
    else:
        mode = nullcontext()
    with torch.inference_mode(), mode:
        yield
