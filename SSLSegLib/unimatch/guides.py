"""The second supervisor: nothing, stored pseudo-labels, or a SAM2 prompted with the network's own prediction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.cases.frames import IMAGENET_MEAN, IMAGENET_STD
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.errors import CaseError
from SSLSegLib.pseudolabels.storage import load_pseudo_label
from SSLSegLib.unimatch.decisions import guide_folder, guide_folders
from SSLSegLib.unimatch.options import Prompting
from SSLSegLib.unimatch.slices import GuideMaps
from SSLSegLib.unimatch.views import Origin

__all__ = ["Guide", "GuideRequest", "Sam2Guide", "StoredGuide", "pseudo_label_maps", "with_background"]

_LARGEST_LOGIT = 32.0  # SAM2 clamps its own mask logits to this


@dataclass(frozen=True)
class GuideRequest:
    """What a guide is asked about: U weak views.

    Args:
        images: uint8 (U, S, S, 3).
        prediction: (U, 1 + classes, S, S), probabilities of the network that prompts.
        stored: (U, classes, S, S) of a stored guide, warped into the views; None without.
        fraction: Part of the training that is done, t / T.
        rng: For random prompts.
        origins: Where the views come from, for guides that look at whole slices; None where nothing is known of it.
    """

    images: torch.Tensor
    prediction: torch.Tensor
    stored: torch.Tensor | None
    fraction: float
    rng: np.random.Generator
    origins: Sequence[Origin] | None = None


class Guide(Protocol):
    """A second supervisor."""

    def __call__(self, request: GuideRequest) -> torch.Tensor | None:
        """Probabilities (U, 1 + classes, S, S), background first; None where it stays silent."""


class StoredGuide:
    """Pseudo-labels made before the training (TFFS, or any others), moved into the views by the data."""

    def __call__(self, request: GuideRequest) -> torch.Tensor | None:
        """The stored probabilities as they lie in the views."""
        return None if request.stored is None else with_background(request.stored)


class Sam2Guide:
    """SAM2 prompted, class by class, with a prediction on the weak view; its heads are called directly.

    (The tracking step of SAM2 hands a mask prompt back unchanged, which would teach nothing.) A class that the
    prediction does not hold is not prompted for and counts as absent.

    Args:
        model: ``SAM2Base`` in eval mode on the training's device.
        prompting: Forms of the prompts.
    """

    def __init__(self, model: torch.nn.Module, prompting: Prompting | None = None) -> None:
        self.model, self.prompting = model, prompting or Prompting()

    @torch.no_grad()
    def __call__(self, request: GuideRequest) -> torch.Tensor | None:
        """SAM2's answer; None before the start."""
        if request.fraction < self.prompting.start:
            return None
        prediction = request.prediction.float()
        found = prediction.argmax(1)
        pairs = [
            (image, value)
            for image in range(len(prediction))
            for value in range(1, prediction.shape[1])
            if bool((found[image] == value).any())
        ]
        answer = torch.zeros_like(prediction[:, 1:])
        if pairs:
            size = tuple(prediction.shape[-2:])
            logits = self._segment(request, prediction, found, pairs)
            masks = F.interpolate(logits, size, mode="bilinear", align_corners=False)[:, 0].sigmoid()
            for (image, value), mask in zip(pairs, masks, strict=True):
                answer[image, value - 1] = mask
        return with_background(answer)

    def _segment(
        self,
        request: GuideRequest,
        prediction: torch.Tensor,
        found: torch.Tensor,
        pairs: Sequence[tuple[int, int]],
    ) -> torch.Tensor:
        """Mask logits (pairs, 1, h, w)."""
        model = self.model
        levels = model.forward_image(_frames(request.images, model.image_size))["backbone_fpn"]
        levels = levels[-model.num_feature_levels :]
        images = torch.tensor([image for image, _ in pairs], device=prediction.device)
        finest, top = levels[:-1], levels[-1]
        # As on a first frame, which has no memory.
        top = (top + model.no_mem_embed.reshape(1, -1, 1, 1))[images]
        point_inputs = self._points([(found[i] == v).cpu().numpy() for i, v in pairs], request.rng, prediction)
        mask_inputs = None
        if "mask" in self.prompting.forms:
            of_class = torch.stack([prediction[i, v] for i, v in pairs])[:, None]
            mask_inputs = torch.logit(of_class, eps=1e-7).clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)
        _, _, _, low_resolution, *_ = model._forward_sam_heads(
            backbone_features=top,
            point_inputs=point_inputs,
            mask_inputs=mask_inputs,
            high_res_features=[level[images] for level in finest] or None,
            multimask_output=model._use_multimask(True, point_inputs),
        )
        return low_resolution.float()

    def _points(
        self, masks: Sequence[np.ndarray], rng: np.random.Generator, like: torch.Tensor
    ) -> dict[str, torch.Tensor] | None:
        """Boxes (as SAM2 takes them: two labelled corners) and points, in SAM2's pixels."""
        forms = self.prompting.forms
        if "box" not in forms and "points" not in forms:
            return None
        coordinates, labels = [], []
        for mask in masks:
            component = _largest_component(mask)
            places, kinds = [], []
            if "box" in forms:
                places += _box(component, rng, self.prompting.jitter)
                kinds += [2, 3]
            if "points" in forms:
                inner = _inner_points(component, self.prompting.points)
                places += inner + [inner[-1]] * (self.prompting.points - len(inner))
                kinds += [1] * self.prompting.points
            coordinates.append(places)
            labels.append(kinds)
        scale = self.model.image_size / like.shape[-1]
        return {
            "point_coords": torch.tensor(coordinates, dtype=torch.float32, device=like.device) * scale,
            "point_labels": torch.tensor(labels, dtype=torch.int32, device=like.device),
        }


def with_background(probability: torch.Tensor) -> torch.Tensor:
    """Binary probabilities of classes (U, classes, S, S) to a distribution (U, 1 + classes, S, S).

    Softmax over the classes' logits and a background logit of zero: with one class nothing changes, and the background
    is likeliest exactly where no class reaches one half.
    """
    logits = torch.logit(probability.float(), eps=1e-6)
    return torch.cat([torch.zeros_like(logits[:, :1]), logits], dim=1).softmax(1)


def pseudo_label_maps(cohort: Cohort, results: Path | Mapping[str, Path]) -> GuideMaps:
    """Read the probabilities of a pseudo-labelling job.

    Args:
        cohort: Whose classes the maps must have.
        results: The job's folder or its ``results`` folder, or unlabelled case -> its folder in it.

    Raises:
        CaseError: From the returned function, where a case has no valid result or one of other classes or geometry.
    """
    folders = guide_folders(cohort, results)

    def maps(case: Case, geometry: Geometry) -> np.ndarray:
        label = load_pseudo_label(guide_folder(cohort, case, folders))
        if not label.geometry.matches(geometry):
            raise CaseError(
                f"The pseudo-label is not in the geometry of the image: {label.geometry.difference(geometry)}.",
                case_id=case.id,
                remedy="Use a job that was run on these images.",
            )
        return label.probability

    return maps


def _frames(images: torch.Tensor, side: int) -> torch.Tensor:
    """uint8 (U, S, S, 3) to SAM2's frames (U, 3, side, side)."""
    frames = images.movedim(-1, 1).float() / 255
    if frames.shape[-1] != side:
        frames = F.interpolate(frames, (side, side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    mean, deviation = (frames.new_tensor(each)[:, None, None] for each in (IMAGENET_MEAN, IMAGENET_STD))
    return (frames - mean) / deviation


def _largest_component(mask: np.ndarray) -> np.ndarray:
    components, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if count <= 1:
        return mask
    return components == 1 + np.bincount(components.ravel())[1:].argmax()


def _box(mask: np.ndarray, rng: np.random.Generator, jitter: float) -> list[tuple[float, float]]:
    """Corners (x, y) of a mask's box, each side shifted by up to ``jitter`` of its length."""
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    shift = rng.uniform(-jitter, jitter, 4) * np.array([right - left, bottom - top, right - left, bottom - top])
    height, width = mask.shape
    corners = np.clip(np.array([left, top, right, bottom]) + shift, 0, [width, height, width, height])
    return [(float(corners[0]), float(corners[1])), (float(corners[2]), float(corners[3]))]


def _inner_points(mask: np.ndarray, count: int) -> list[tuple[float, float]]:
    """Points (x, y) deep inside a mask, each outside the largest circle about the ones before."""
    distance = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    rows, columns = np.indices(mask.shape)
    points = []
    while len(points) < count and distance.max() > 0:
        row, column = np.unravel_index(distance.argmax(), mask.shape)
        points.append((float(column) + 0.5, float(row) + 0.5))
        distance = np.where((rows - row) ** 2 + (columns - column) ** 2 <= distance.max() ** 2, 0, distance)
    return points
