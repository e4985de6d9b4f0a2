"""What each precision mode means for the parts of SAM2."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

__all__ = ["attention_dtype", "computing"]


def attention_dtype(precision: str) -> torch.dtype:
    """Number format inside memory attention: float32 for ``exact``, else bfloat16."""
    return torch.float32 if precision == "exact" else torch.bfloat16


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
