"""Which device to compute on: the wish, tried with a real operation, and said in words. Never a silent CPU."""

from dataclasses import dataclass

import torch

from ..errors import SSLSegError

__all__ = ["DeviceChoice", "DeviceError", "resolve_device"]


class DeviceError(SSLSegError):
    """The device that was asked for is not there or does not compute."""


@dataclass(frozen=True)
class DeviceChoice:
    """A device that has computed something, and one sentence on why it was chosen."""

    device: torch.device
    outcome: str


def resolve_device(wish: str | torch.device = "auto") -> DeviceChoice:
    """Find a device and try it.

    Args:
        wish: ``auto`` (first of CUDA, MPS, CPU that computes correctly), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises:
        DeviceError: Another wish, or the named device is missing, fails or computes wrongly. A named device is never
            replaced; ``auto`` says in ``outcome`` what was passed over and why.
    """
    name = str(wish).strip().lower()
    if name == "auto":
        return _first_that_computes()
    try:
        device = torch.device(name)
    except RuntimeError as problem:
        raise DeviceError(
            f"There is no device named {str(wish)!r}.", remedy="Use auto, cpu, cuda, cuda:1, … or mps."
        ) from problem
    if device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"Devices of type {device.type!r} are not supported.", remedy="Use auto, cpu, cuda or mps.")
    if problem := _problem_with(device):
        raise DeviceError(
            f"The device {name} cannot be used: {problem}.",
            remedy="Use device auto or cpu, or repair the installation.",
        )
    return DeviceChoice(device, f"{_described(device)}, as asked for; a test operation was correct.")


def _first_that_computes() -> DeviceChoice:
    passed_over = []
    for device in (torch.device("cuda"), torch.device("mps"), torch.device("cpu")):
        problem = _problem_with(device)
        if problem is None:
            because = f" ({'; '.join(passed_over)})" if passed_over else ""
            return DeviceChoice(device, f"{_described(device)}; a test operation was correct{because}.")
        passed_over.append(f"no {device.type}: {problem}")
    raise DeviceError(f"No device computes correctly: {'; '.join(passed_over)}.", remedy="Install torch again.")


def _problem_with(device: torch.device) -> str | None:
    """Try a device; ``None`` if it agrees with the CPU, otherwise what is wrong."""
    if device.type == "cuda" and not torch.cuda.is_available():
        return "this torch has no CUDA support" if torch.version.cuda is None else "no CUDA GPU or driver is found"
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        return f"there are {torch.cuda.device_count()} CUDA GPUs, counted from cuda:0"
    if device.type == "mps" and not torch.backends.mps.is_available():
        return "no Apple GPU is available to torch"
    expected = _test_operation(torch.device("cpu"))
    try:
        computed = _test_operation(device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as problem:  # out of memory, driver, missing kernel
        return str(problem).strip().splitlines()[0]
    if not torch.allclose(computed, expected, atol=1e-2, rtol=1e-2):
        return "a test operation gave a wrong result"
    return None


def _test_operation(device: torch.device) -> torch.Tensor:
    """What SAM2 leans on: convolution, max-pooling of a permuted view (Hiera's pooled query), attention."""
    image = torch.linspace(-1, 1, 3 * 8 * 8).reshape(1, 3, 8, 8).to(device)
    kernel = torch.linspace(-0.5, 0.5, 4 * 3 * 9).reshape(4, 3, 3, 3).to(device)
    features = torch.nn.functional.conv2d(image, kernel, padding=1)
    view = features.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    tokens = torch.nn.functional.max_pool2d(view, 2).flatten(2).transpose(1, 2)
    return torch.nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)


def _described(device: torch.device) -> str:
    if device.type == "cuda":
        return f"GPU {torch.cuda.get_device_name(device)} ({device})"
    return "Apple GPU (mps)" if device.type == "mps" else "CPU"
