"""What VESSA's mask decoder needs of every unlabelled slice, computed once and kept on disk.

In stage 2 VESSA is frozen and looks at un-augmented slices; so h_seg, image features and memory-attended features are
constants of (slice, class, template). Kept, only the mask decoder runs in a step, and the language model can leave
memory.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from SSLSegLib.cases.cohort import Case
from SSLSegLib.cases.reading import read_geometry
from SSLSegLib.errors import JobError
from SSLSegLib.files import write_json
from SSLSegLib.progress import Progress, silent
from SSLSegLib.vessa.inputs import DecoderInputs, LiveInputs, Place
from SSLSegLib.vessa.prompts import class_phrase

__all__ = ["CachedInputs", "build_cache", "cache_bytes"]

STAGE = "Preparing VESSA's features"


class CachedInputs:
    """Inputs of the decoder from memory-mapped files of :func:`build_cache`.

    Args:
        folder: Where they lie.
        cases: Ids, in the order of the places' cases.
        device: Where :meth:`fetch` delivers.
    """

    def __init__(self, folder: Path, cases: Sequence[str], device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._cases = [_CaseFiles(Path(folder), case_id) for case_id in cases]

    def weights(self, case: int, slice_: int, target: int) -> np.ndarray:
        """See :class:`InputSource`."""
        weights = self._cases[case].weights[slice_, target]
        return weights[~np.isnan(weights)]

    def fetch(self, places: Sequence[Place]) -> DecoderInputs:
        """See :class:`InputSource`."""
        files = [self._cases[place.case] for place in places]

        def gathered(rows: list[torch.Tensor]) -> torch.Tensor:
            return torch.stack(rows).to(self.device, non_blocking=True).float()

        attended = gathered([f.attended[p.slice, p.target, p.candidate] for f, p in zip(files, places, strict=True)])
        finer = tuple(
            gathered([f.finer[level][p.slice] for f, p in zip(files, places, strict=True)])
            for level in range(len(files[0].finer))
        )
        prompts = None
        if files[0].prompts is not None:
            prompts = gathered([f.prompts[p.slice, p.target, p.candidate] for f, p in zip(files, places, strict=True)])
        return DecoderInputs(attended, finer, prompts)


def build_cache(
    live: LiveInputs, folder: Path, *, dtype: torch.dtype = torch.bfloat16, progress: Progress = silent
) -> None:
    """Compute and store the inputs of every (unlabelled slice, class, candidate); what is there already stays.

    Args:
        live: Where they come from.
        folder: For the files, one set a case.
        dtype: Of image features and attended features; h_seg is float32 (it is small).
        progress: Gets ``stage`` and ``progress`` events.

    Raises:
        JobError: The disk has too little room for it.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    cases, key = live.cohort.unlabelled, _key(live, dtype)
    missing = [case for case in cases if _known(folder, case) != key]
    _require_room(live, folder, missing, dtype)
    progress("stage", stage=STAGE, total=len(cases))
    for number, case in enumerate(cases):
        if case in missing:
            _build_case(live, folder, number, case, dtype)
            write_json(folder / f"{case.id}.json", {**_sizes(live, number), "key": key})
            live.release(number)
        progress("progress", stage=STAGE, done=number + 1, total=len(cases), case=case.id)


def cache_bytes(
    *, slices: int, classes: int, top: int, side: int, width: int = 256, finer: Sequence[int] = (32, 64), size: int = 2
) -> int:
    """Bytes on disk of a cache.

    Args:
        slices: Of all unlabelled cases.
        classes, top: Of the cohort, and candidates.
        side: h, the side of the top level: 32 for frames of 512 pixels, 64 for 1,024.
        width: C.
        finer: Channels of the finer levels, at 4h and 2h (SAM2's projections: C / 8 and C / 4).
        size: Bytes a number; 2 for bfloat16.
    """
    attended = classes * top * width * side**2
    high = finer[0] * (4 * side) ** 2 + finer[1] * (2 * side) ** 2
    return slices * (size * (attended + high) + 4 * classes * top * width)


def _require_room(live: LiveInputs, folder: Path, missing: Sequence[Case], dtype: torch.dtype) -> None:
    segmenter = live.model.segmenter
    needed = cache_bytes(
        slices=sum(read_geometry(live.cohort, case).shape[0] for case in missing),
        classes=len(live.targets),
        top=live.options.top,
        side=segmenter.side // segmenter.sam2.backbone_stride,
        width=segmenter.width,
        finer=(segmenter.width // 8, segmenter.width // 4),
        size=dtype.itemsize,
    )
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise JobError(
            f"VESSA's features need {needed / 2**30:.1f} GiB in {folder}, and {free / 2**30:.1f} GiB are free.",
            remedy="Make room, choose another disk, or take fewer candidate templates.",
        )


def _build_case(live: LiveInputs, folder: Path, number: int, case: Case, dtype: torch.dtype) -> None:
    slices, classes, top = live.slices(number), len(live.targets), live.options.top
    weights = np.full((slices, classes, top), np.nan)
    files: dict[str, torch.Tensor] = {}

    def put(name: str, shape: tuple[int, ...], index: tuple[int, ...], row: torch.Tensor, kind: torch.dtype) -> None:
        if name not in files:
            path = folder / f"{case.id}.{name}.bin"
            path.unlink(missing_ok=True)
            whole = torch.Size((*shape, *row.shape))
            files[name] = torch.from_file(str(path), shared=True, size=whole.numel(), dtype=kind).view(whole)
        files[name][index] = row.to("cpu", kind)

    for slice_ in range(slices):
        places = []
        for target in range(classes):
            likely = live.weights(number, slice_, target)
            weights[slice_, target, : len(likely)] = likely
            places += [Place(number, slice_, target, candidate) for candidate in range(len(likely))]
        for start in range(0, len(places), live.options.batch):
            part = places[start : start + live.options.batch]
            found = live.fetch(part)
            for row, place in enumerate(part):
                index = (place.slice, place.target, place.candidate)
                put("attended", (slices, classes, top), index, found.attended[row], dtype)
                if found.prompts is not None:
                    put("prompts", (slices, classes, top), index, found.prompts[row], torch.float32)
                for level, features in enumerate(found.finer):
                    put(f"finer{level}", (slices,), (place.slice,), features[row], dtype)
    np.save(folder / f"{case.id}.weights.npy", weights, allow_pickle=False)


class _CaseFiles:
    """The files of one case."""

    def __init__(self, folder: Path, case_id: str) -> None:
        record = json.loads((folder / f"{case_id}.json").read_text(encoding="utf-8"))
        kind = getattr(torch, record["key"]["dtype"])
        self.weights = np.load(folder / f"{case_id}.weights.npy", allow_pickle=False)

        def opened(name: str, kind: torch.dtype) -> torch.Tensor | None:
            shape = record["shapes"].get(name)
            if shape is None:
                return None
            count = torch.Size(shape).numel()
            path = str(folder / f"{case_id}.{name}.bin")
            return torch.from_file(path, shared=False, size=count, dtype=kind).view(shape)

        self.attended = opened("attended", kind)
        self.prompts = opened("prompts", torch.float32)
        self.finer = [opened(name, kind) for name in sorted(record["shapes"]) if name.startswith("finer")]


def _sizes(live: LiveInputs, number: int) -> dict[str, Any]:
    """Shapes of the files of a case."""
    slices, classes, top = live.slices(number), len(live.targets), live.options.top
    segmenter = live.model.segmenter
    height = segmenter.side // segmenter.sam2.backbone_stride
    shapes = {"attended": [slices, classes, top, segmenter.width, height, height]}
    if live.model.language is not None:
        shapes["prompts"] = [slices, classes, top, segmenter.width]
    if segmenter.sam2.use_high_res_features_in_sam:
        shapes["finer0"] = [slices, segmenter.width // 8, 4 * height, 4 * height]
        shapes["finer1"] = [slices, segmenter.width // 4, 2 * height, 2 * height]
    return {"shapes": shapes}


def _key(live: LiveInputs, dtype: torch.dtype) -> dict[str, Any]:
    """What the files depend on, beside the case's own images."""
    return {
        "vessa": live.vessa.sha256,
        "bank": live.bank.fingerprint(),
        "classes": live.targets,
        "top": live.options.top,
        "temperature": live.options.temperature,
        "position_weight": live.options.position_weight,
        "named": [class_phrase(each) for each in live.cohort.classes] if live.options.named else None,
        "modality": live.cohort.modality,
        "window": None if live.cohort.window is None else live.cohort.window.model_dump(mode="json"),
        "dtype": str(dtype).removeprefix("torch."),
    }


def _known(folder: Path, case: Case) -> dict[str, Any] | None:
    try:
        return json.loads((folder / f"{case.id}.json").read_text(encoding="utf-8"))["key"]
    except (FileNotFoundError, KeyError, ValueError):
        return None
