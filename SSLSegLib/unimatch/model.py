"""A trained network on disk: weights as safetensors and a JSON file that says what they are of."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.cohort import Cohort, Window
from SSLSegLib.errors import WeightsError
from SSLSegLib.files import atomic_path, sha256_of, write_json
from SSLSegLib.unimatch.configuration import NetworkConfiguration
from SSLSegLib.unimatch.folders import RECORD
from SSLSegLib.unimatch.network import SegmentationNetwork
from SSLSegLib.weights.device import resolve_device

__all__ = ["ModelRecord", "TrainedNetwork", "load_model", "save_model"]


class ModelRecord(BaseModel):
    """What ``model.json`` holds.

    Args:
        network: How it is built.
        classes: What it segments, in the order of its outputs after the background.
        modality, window: How grey levels are made.
        channels: Image channels.
        pixel_mm: Size of the pixels it was trained on.
        which: Whose weights these are.
        sha256: Of the weights.
        labelled: Ids of the labelled cases.
        options: Of the training.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    network: NetworkConfiguration
    classes: tuple[SegmentClass, ...]
    modality: str
    window: Window | None
    channels: int
    pixel_mm: float
    which: Literal["teacher", "student"]
    sha256: str
    labelled: tuple[str, ...]
    options: dict[str, Any]


@dataclass(frozen=True, eq=False)
class TrainedNetwork:
    """A network ready to predict."""

    network: SegmentationNetwork
    record: ModelRecord
    device: torch.device


def save_model(
    folder: Path,
    network: SegmentationNetwork,
    cohort: Cohort,
    *,
    which: Literal["teacher", "student"],
    channels: int,
    pixel_mm: float,
    options: dict[str, Any],
) -> ModelRecord:
    """Write ``<which>.safetensors`` and then ``model.json``."""
    from safetensors.torch import save_file

    path = Path(folder) / f"{which}.safetensors"
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(state, temporary)
    record = ModelRecord(
        network=network.configuration,
        classes=cohort.classes,
        modality=cohort.modality,
        window=cohort.window,
        channels=channels,
        pixel_mm=pixel_mm,
        which=which,
        sha256=sha256_of(path),
        labelled=tuple(case.id for case in cohort.labelled),
        options=options,
    )
    write_json(Path(folder) / RECORD, record.model_dump(mode="json"))
    return record


def load_model(folder: Path, device: str | torch.device = "cpu") -> TrainedNetwork:
    """Read a trained network.

    Raises:
        WeightsError: There is none, or its files do not belong together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    again = "Train again, or restore both files of the model."
    try:
        record = ModelRecord.model_validate(json.loads((folder / RECORD).read_text(encoding="utf-8")))
        weights = folder / f"{record.which}.safetensors"
        if sha256_of(weights) != record.sha256:
            raise WeightsError(f"{weights} is not the file that {RECORD} describes.", remedy=again)
        network = SegmentationNetwork(record.network, len(record.classes) + 1)
        network.load_state_dict(load_file(weights))
    except FileNotFoundError as error:
        raise WeightsError(f"There is no trained model in {folder}.", remedy="Run `unimatch` to its end.") from error
    except (ValueError, ValidationError, SafetensorError, RuntimeError) as error:
        raise WeightsError(f"The model in {folder} is damaged.", remedy=again) from error
    chosen = resolve_device(device).device
    return TrainedNetwork(network.to(chosen).eval(), record, chosen)
