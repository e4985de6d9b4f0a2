"""Files of weights read safely: tensors only, no code, and a clear word on whatever else the file turns out to be."""

import errno
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch

from ..errors import WeightsError

__all__ = ["read_state_dict", "recognised_as"]

_COPY_AGAIN = "Delete the file and download or copy it again."

# What else a state dict may be, by the beginning of its keys.
_OTHER_MODELS = (
    ("embeddings.patch_embeddings.", "DINOv2 in the format of transformers"),
    ("blocks.0.ls1.", "DINOv2 in Meta's format"),
    ("model.language_model.", "a language model such as Qwen3-VL"),
    ("model.visual.", "a vision-language model such as Qwen3-VL"),
    ("vision_encoder.", "SAM in the format of transformers"),
    ("image_encoder.patch_embed.", "the first SAM (or MedSAM), not SAM2"),
    ("image_encoder.neck.0.", "the first SAM (or MedSAM), not SAM2"),
    ("encoder.stages.", "an nnU-Net"),
)


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Read named tensors from a file in the official SAM2 format or from safetensors, onto the CPU as float32.

    The official format is ``torch.save({"model": state_dict, ...})``; extras of training beside ``model`` are
    ignored. Unpickling is restricted to tensors (``weights_only=True``).

    Raises:
        WeightsError: Not a file of weights, damaged, or holding anything that would execute code.
    """
    path = Path(path)
    head = _first_bytes(path)
    _refuse_lookalikes(path, head)
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    wrong = [reason for name, tensor in state.items() if (reason := _no_weights(name, tensor))]
    if wrong or not state:
        raise WeightsError(
            f"{path} holds no weights: {wrong[0] if state else 'it is empty'}.",
            remedy="Use a checkpoint in the format of SAM2 or MedSAM2, or a safetensors file.",
        )
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def recognised_as(state: Mapping[str, torch.Tensor]) -> str | None:
    """What another model's state dict belongs to, in words; ``None`` if it is not one we know."""
    for prefix, model in _OTHER_MODELS:
        if any(name.startswith(prefix) for name in state):
            return model
    return None


def _no_weights(name: object, tensor: object) -> str:
    """Why this is not a name with a plain tensor of its own numbers; empty where it is."""
    if not isinstance(name, str):
        return f"{name!r} is not a name"
    if not isinstance(tensor, torch.Tensor):
        return f"{name!r} is not a tensor"
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_complex():
        return f"{name!r} is not a plain tensor of real numbers"
    # One stored number can be shown as any number of them, which take memory as soon as something is computed.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"{name!r} claims more numbers than are stored"
    return ""


def _first_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():  # a pipe or a device never ends
            raise OSError(errno.EINVAL, "it is not a file")
        with open(path, "rb") as opened:
            return opened.read(256)
    except OSError as problem:
        raise WeightsError(f"{path} cannot be read: {problem.strerror}.", remedy="Check path and rights.") from problem


def _refuse_lookalikes(path: Path, head: bytes) -> None:
    if not head:
        raise WeightsError(f"{path} is empty.", remedy=_COPY_AGAIN)
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        raise WeightsError(
            f"{path} is a web page, not weights (a login or error page was saved under this name).", remedy=_COPY_AGAIN
        )
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError(
            f"{path} is a Git LFS pointer, not the weights themselves.", remedy="Run `git lfs pull`, or download it."
        )
    if path.suffix != ".safetensors" and not head.startswith((b"PK\x03\x04", b"\x80")):  # zip, or torch before 1.6
        raise WeightsError(
            f"{path} is no file of weights: it is neither torch's format nor safetensors.",
            remedy="Name a file of weights, or a name that `weights list` shows.",
        )


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, KeyError, ValueError, RuntimeError, OverflowError, MemoryError) as problem:
        raise WeightsError(f"{path} is damaged or is no safetensors file: {problem}", remedy=_COPY_AGAIN) from problem


def _refuse_bomb(path: Path) -> None:
    """torch stores its parts unpacked; an archive of more than its own size was not written by torch."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(part.file_size for part in archive.infolist())
            packed = any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, EOFError) as problem:
        raise WeightsError(f"{path} is damaged or incomplete: {problem}", remedy=_COPY_AGAIN) from problem
    if packed or unpacked > path.stat().st_size:
        raise WeightsError(
            f"{path} was refused: it would unpack to {unpacked} bytes, as no file of weights does.",
            remedy="Use the file from its official source.",
        )


def _read_torch(path: Path) -> dict[str, torch.Tensor]:
    if _first_bytes(path).startswith(b"PK"):
        _refuse_bomb(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as problem:
        if "Unsupported" in str(problem) or "WeightsUnpickler error" in str(problem):
            raise WeightsError(
                f"{path} holds more than tensors and was refused, for it could run code when read: {_reason(problem)}",
                remedy="Use the file from its official source; never load it by other means.",
            ) from problem
        raise WeightsError(f"{path} is no file of weights: {_reason(problem)}", remedy=_COPY_AGAIN) from problem
    except Exception as problem:  # whatever a damaged pickle makes its reader stumble over
        raise WeightsError(
            f"{path} is damaged or incomplete ({path.stat().st_size} bytes): {_reason(problem)}", remedy=_COPY_AGAIN
        ) from problem
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        content = content["model"]
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds no state dict under 'model'.", remedy="Use a checkpoint of SAM2 or MedSAM2.")
    return dict(content)


def _reason(problem: Exception) -> str:
    """The telling line of torch's long message, without its advice to switch the safety off."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    telling = [line for line in lines if "WeightsUnpickler error" in line or "Unsupported" in line]
    return (telling or lines or [type(problem).__name__])[0][:300]
