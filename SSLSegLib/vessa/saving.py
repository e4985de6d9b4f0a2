"""A VESSA as a folder.

::

    vessa.json            how it is built, what it was trained on, checksums
    sam2.safetensors      its SAM2 (with sam2.json beside it), usable on its own as ``--weights``
    language.safetensors  adapter, new token's rows and projector; all of it where the base has random weights

Qwen3-VL itself is not copied: the folder names the source, whose files the user has.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from SSLSegLib.errors import WeightsError
from SSLSegLib.files import atomic_path, read_json, sha256_of, write_json
from SSLSegLib.vessa.configuration import VessaConfiguration
from SSLSegLib.vessa.model import Vessa, build_vessa
from SSLSegLib.weights.device import resolve_device
from SSLSegLib.weights.loading import load_sam2
from SSLSegLib.weights.sam2_model import place_sam2
from SSLSegLib.weights.saving import save_sam2

__all__ = [
    "RECORD",
    "SAM2",
    "LoadedVessa",
    "language_state",
    "load_vessa",
    "place_vessa",
    "require_vessa",
    "save_vessa",
    "without_language",
]

RECORD, SAM2, LANGUAGE = "vessa.json", "sam2.safetensors", "language.safetensors"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    configuration: VessaConfiguration
    sam2_sha256: str
    language_sha256: str | None
    training: dict[str, Any] = {}


@dataclass(frozen=True)
class LoadedVessa:
    """A VESSA ready to run.

    Args:
        model: In eval mode, on ``device``.
        name: Of the folder or of the SAM2 weights.
        sha256: Changes with any of its weights.
        device, device_outcome: Where it lies, and why in words.
    """

    model: Vessa
    name: str
    sha256: str
    device: torch.device
    device_outcome: str


def save_vessa(
    folder: Path, model: Vessa, *, training: Mapping[str, Any] | None = None, dtype: torch.dtype = torch.float32
) -> None:
    """Write a folder that :func:`load_vessa` reads; ``vessa.json`` comes last.

    Args:
        folder: Where.
        model: Which.
        training: How it was trained, as plain values for JSON.
        dtype: Of the stored SAM2.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    configuration = model.configuration
    beside = save_sam2(folder / SAM2, model.segmenter.sam2, configuration.sam2, dtype=dtype, training=training)
    digest = None
    if model.language is not None:
        with atomic_path(folder / LANGUAGE) as temporary:
            save_file(language_state(model), temporary)
        digest = sha256_of(folder / LANGUAGE)
    record = _Record(
        configuration=configuration,
        sam2_sha256=beside.sha256,
        language_sha256=digest,
        training=dict(training or {}),
    )
    write_json(folder / RECORD, record.model_dump(mode="json"))


def require_vessa(folder: Path | str) -> None:
    """Refuse a folder of no VESSA before any work; its weights are read by :func:`load_vessa`.

    Raises:
        WeightsError: A file is missing, or ``vessa.json`` is damaged.
    """
    folder = Path(folder)
    record = _read_record(folder)
    for name in (SAM2, *([LANGUAGE] if record.language_sha256 else [])):
        if not (folder / name).is_file():
            raise WeightsError(f"{folder} is no whole VESSA: {name} is missing.", remedy="Restore the whole folder.")


def load_vessa(
    folder: Path | str, device: str | torch.device = "auto", *, language: bool = True, download: bool = False
) -> LoadedVessa:
    """Read a folder of :func:`save_vessa`.

    Args:
        folder: Where it lies.
        device: See :func:`~SSLSegLib.weights.device.resolve_device`.
        language: False: run it "without VLM" (an ablation, or where its Qwen3-VL is not at hand).
        download: See :func:`~SSLSegLib.vessa.language_loading.load_language`.

    Raises:
        WeightsError: Files are missing, damaged or do not fit, or its Qwen3-VL is not here.
    """
    folder = Path(folder)
    record = _read_record(folder)
    configuration = record.configuration
    if not language and configuration.language is not None:
        configuration = configuration.model_copy(update={"language": None})
        if not configuration.memory:
            raise WeightsError("This VESSA has no memory: without its language model nothing says what to segment.")
    choice = resolve_device(device)
    sam2 = load_sam2(folder / SAM2, "cpu")
    if sam2.sha256 != record.sam2_sha256:
        raise WeightsError(f"{folder / SAM2} is not the file that {RECORD} names.", remedy="Restore the whole folder.")
    model = build_vessa(configuration, sam2=sam2.model, download=download)
    digest = record.sam2_sha256
    if model.language is not None:
        _fill_language(model, folder / LANGUAGE, record)
        digest = _joined(digest, record.language_sha256)
    return LoadedVessa(place_vessa(model, choice.device), folder.name, digest, choice.device, choice.outcome)


def _read_record(folder: Path) -> _Record:
    try:
        return _Record.model_validate(read_json(folder / RECORD))
    except FileNotFoundError:
        inside = folder / "model"  # of a training
        remedy = (
            f"Name the folder of the model: {inside}."
            if (inside / RECORD).is_file()
            else "Train one with `python -m SSLSegLib vessa train`, or run without: `vessa segment --sam2 WEIGHTS`."
        )
        raise WeightsError(f"{folder} holds no VESSA: {RECORD} is missing.", remedy=remedy) from None
    except (OSError, ValueError, ValidationError) as error:
        raise WeightsError(f"{folder / RECORD} cannot be read: {str(error).splitlines()[0]}.") from error


def without_language(sam2: str | Path, device: str | torch.device = "auto") -> LoadedVessa:
    """The mode "without VLM" on any SAM2, MedSAM2 or the bundled weights: templates speak through the memory.

    Raises:
        WeightsError: See :func:`~SSLSegLib.weights.loading.load_sam2`.
    """
    loaded = load_sam2(sam2, device)
    configuration = VessaConfiguration(sam2=loaded.configuration, single_mask=False)
    model = build_vessa(configuration, sam2=loaded.model)
    return LoadedVessa(model, loaded.name, loaded.sha256, loaded.device, loaded.device_outcome)


def place_vessa(model: Vessa, device: torch.device | str) -> Vessa:
    """Move a VESSA to a device, with SAM2's tables that lie outside its buffers."""
    place_sam2(model.segmenter.sam2, device)
    return model.to(device)


def language_state(model: Vessa) -> dict[str, torch.Tensor]:
    """What must be stored of the language model's side: what was trained, and the base too where it was random."""
    language = model.language
    random = model.configuration.language.source is None
    state = language.state_dict()
    trained = {name for name, parameter in language.named_parameters() if parameter.requires_grad or random}
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items() if name in trained}


def _fill_language(model: Vessa, path: Path, record: _Record) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        digest, state = sha256_of(path), load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read: {error}.", remedy="Restore the whole folder.") from error
    if digest != record.language_sha256:
        raise WeightsError(f"{path} is not the file that {RECORD} names.", remedy="Restore the whole folder.")
    expected = language_state(model)
    if expected.keys() != state.keys() or any(expected[name].shape != state[name].shape for name in state):
        raise WeightsError(
            f"{path} does not fit the language model '{record.configuration.language.source}'.",
            remedy="Use the Qwen3-VL that it was trained with.",
        )
    model.language.load_state_dict(state, strict=False)


def _joined(*digests: str | None) -> str:
    return hashlib.sha256("".join(each or "" for each in digests).encode()).hexdigest()
