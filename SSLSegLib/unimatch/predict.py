"""Slices back to volumes: class probabilities and pseudo-labels in exactly the geometry of the images."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.cases.intensities import to_display_range
from SSLSegLib.cases.reading import read_volume
from SSLSegLib.cases.volume import Volume
from SSLSegLib.errors import CaseError
from SSLSegLib.progress import Progress, silent
from SSLSegLib.pseudolabels.label import PseudoLabel, build_pseudo_label, make_provenance
from SSLSegLib.unimatch.model import TrainedNetwork
from SSLSegLib.unimatch.slices import colours, resampled
from SSLSegLib.unimatch.views import normalise

__all__ = ["METHOD", "class_probabilities", "predict_cases", "segment"]

METHOD = "UniMatch v2"


@torch.inference_mode()
def class_probabilities(model: TrainedNetwork, volume: Volume, *, batch: int = 4, case_id: str = "image") -> np.ndarray:
    """Probabilities of the classes, the background left out.

    Each slice is brought to the pixels of the training and padded to whole patches; the logits go back to the
    slice's own pixels before the softmax, as in the official evaluation.

    Args:
        model: The network.
        volume: An image with the channels of the training.
        batch: Slices at a time.
        case_id: For messages.

    Returns:
        float32 (classes, K, J, I).

    Raises:
        CaseError: The image has other channels.
    """
    record = model.record
    if volume.array.shape[0] != record.channels:
        raise CaseError(
            f"The image has {volume.array.shape[0]} channels, the model was trained on {record.channels}.",
            case_id=case_id,
            remedy="Give the same channels in the same order as in the training.",
        )
    display = colours(to_display_range(volume, record.modality, record.window))
    in_plane, spacing, patch = volume.geometry.in_plane, volume.geometry.spacing[1:], record.network.patch
    shape = [max(patch, round(n * step / record.pixel_mm)) for n, step in zip(in_plane, spacing, strict=True)]
    padding = [-side % patch for side in shape]
    result = np.empty((len(record.classes), *volume.geometry.shape), np.float32)
    for start in range(0, display.shape[1], batch):
        chosen = slice(start, start + batch)
        images = resampled(torch.from_numpy(np.ascontiguousarray(display[:, chosen])), tuple(shape))
        images = images.round().clamp(0, 255).byte()
        images = F.pad(images, (0, padding[1], 0, padding[0])).permute(1, 2, 3, 0)
        logits = model.network(normalise(images.to(model.device))).float()[..., : shape[0], : shape[1]]
        logits = F.interpolate(logits, in_plane, mode="bilinear", align_corners=False)
        result[:, chosen] = logits.softmax(1)[:, 1:].movedim(0, 1).cpu().numpy()
    return result


def segment(
    model: TrainedNetwork, cohort: Cohort, case: Case, *, largest_component: bool = True, batch: int = 4
) -> PseudoLabel:
    """Segment one case, as a pseudo-label with its uncertainty (entropy), scores and provenance."""
    volume = read_volume(cohort, case)
    record = model.record
    return build_pseudo_label(
        case.id,
        class_probabilities(model, volume, batch=batch, case_id=case.id),
        volume.geometry,
        record.classes,
        largest_component=largest_component,
        provenance=make_provenance(
            _method(record.options),
            seed=record.options.get("seed"),
            labelled=record.labelled,
            options=record.options,
            weights=f"unimatch-{record.which}",
            weights_sha256=record.sha256,
        ),
    )


def predict_cases(
    model: TrainedNetwork,
    cohort: Cohort,
    cases: Sequence[Case],
    sink: Callable[[PseudoLabel], None],
    *,
    progress: Progress = silent,
    largest_component: bool = True,
) -> None:
    """Segment cases one by one.

    Args:
        model: The network.
        cohort: Where the cases come from.
        cases: Which.
        sink: Takes each result, as soon as it is there.
        progress: Gets ``stage``, ``progress`` and ``result`` events.
        largest_component: See :func:`SSLSegLib.pseudolabels.label.build_pseudo_label`.
    """
    progress("stage", stage="Segmenting", total=len(cases))
    for number, case in enumerate(cases, start=1):
        sink(segment(model, cohort, case, largest_component=largest_component))
        progress("progress", stage="Segmenting", done=number, total=len(cases), case=case.id)
        progress("result", case=case.id)


def _method(options: Mapping[str, Any]) -> str:
    names = {"supervised": "DINOv2 + DPT, supervised", "upper-bound": "DINOv2 + DPT, all labels"}
    name = names.get(options.get("method"), "Mean teacher" if options.get("method") == "mean-teacher" else METHOD)
    guide = options.get("guide", "none")
    return name if guide == "none" else f"{name} + {guide.upper()}"
