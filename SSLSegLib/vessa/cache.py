"""What VESSA's mask decoder needs of every unlabelled slice: made when asked for, or once and kept on disk.

In stage 2 VESSA is frozen and looks at un-augmented slices; so h_seg, image features and memory-attended features are
constants of (slice, class, template). Kept, only the mask decoder runs in a step, and the language model can leave
memory.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.cases.intensities import to_display_range
from SSLSegLib.cases.reading import read_volume
from SSLSegLib.files import write_json
from SSLSegLib.progress import Progress, silent
from SSLSegLib.vessa.features import Features
from SSLSegLib.vessa.options import VessaOptions
from SSLSegLib.vessa.pictures import picture_of
from SSLSegLib.vessa.saving import LoadedVessa
from SSLSegLib.vessa.segment import TemplateMemories, find_candidates
from SSLSegLib.vessa.segmenter import Levels
from SSLSegLib.vessa.templates import Candidates, TemplateBank

__all__ = ["CachedInputs", "DecoderInputs", "InputSource", "LiveInputs", "Place", "build_cache", "cache_bytes"]

STAGE = "Preparing VESSA's features"


class Place(NamedTuple):
    """One question: case (number among the unlabelled), slice, class (number) and candidate template (0 first)."""

    case: int
    slice: int
    target: int
    candidate: int


class DecoderInputs(NamedTuple):
    """What the mask decoder takes for n places: q (n, C, h, w), the finer levels, and h_seg (n, C) or None."""

    attended: torch.Tensor
    finer: Levels
    prompts: torch.Tensor | None


class InputSource(Protocol):
    """Where inputs of the decoder come from."""

    def weights(self, case: int, slice_: int, target: int) -> np.ndarray:
        """P of the candidates by equation 1; empty where no template holds the class."""

    def fetch(self, places: Sequence[Place]) -> DecoderInputs:
        """Inputs for some places, float32, on the model's device."""


class LiveInputs:
    """Everything computed anew whenever it is asked for, the language model included.

    Args:
        cohort: Its unlabelled cases, in their order, are the places' cases.
        vessa: The model.
        bank: The templates.
        features: By which they are found.
        options: Candidates and temperature.
    """

    def __init__(
        self, cohort: Cohort, vessa: LoadedVessa, bank: TemplateBank, features: Features, options: VessaOptions
    ) -> None:
        bank.require_features(features.name)
        self.cohort, self.vessa, self.bank, self.features, self.options = cohort, vessa, bank, features, options
        self.model = vessa.model
        self.targets = [each.name for each in cohort.classes]
        self.memories = TemplateMemories(self.model, bank)
        self._pictures: dict[int, list[np.ndarray]] = {}
        self._found: dict[tuple[int, int, int], Candidates] = {}

    def slices(self, case: int) -> int:
        """Number of slices of a case."""
        return len(self._of(case))

    def weights(self, case: int, slice_: int, target: int) -> np.ndarray:
        """See :class:`InputSource`."""
        found = self._candidates(case, slice_, target)
        return found.probabilities(self.options.temperature) if found.indices else np.empty(0)

    @torch.no_grad()
    def fetch(self, places: Sequence[Place]) -> DecoderInputs:
        """See :class:`InputSource`."""
        slices = list(dict.fromkeys((place.case, place.slice) for place in places))
        encoded = self.model.encode([self._of(case)[slice_] for case, slice_ in slices])
        row = [slices.index((place.case, place.slice)) for place in places]
        levels = tuple(level[row] for level in encoded)
        templates = [
            self._candidates(place.case, place.slice, place.target).indices[place.candidate] for place in places
        ]
        names = [self.targets[place.target] for place in places]
        attended = self.model.segmenter.attend(levels, self.memories(list(zip(templates, names, strict=True))))
        prompts = self.model.prompts(
            [self._of(place.case)[place.slice] for place in places],
            [self.bank.pictures[template] for template in templates],
            [self.bank.masks[template][name] for template, name in zip(templates, names, strict=True)],
            names if self.options.named else None,
        )
        return DecoderInputs(attended, levels[:-1], prompts)

    def release(self, case: int) -> None:
        """Forget the pictures of a case."""
        self._pictures.pop(case, None)

    def _of(self, case: int) -> list[np.ndarray]:
        if case not in self._pictures:
            volume = read_volume(self.cohort, self.cohort.unlabelled[case])
            display = to_display_range(volume, self.cohort.modality, self.cohort.window)
            self._pictures[case] = [picture_of(display, index) for index in range(display.shape[1])]
        return self._pictures[case]

    def _candidates(self, case: int, slice_: int, target: int) -> Candidates:
        if (case, slice_, target) not in self._found:
            pictures = self._of(case)
            (vector,) = self.features([pictures[slice_]])
            for number, name in enumerate(self.targets):
                found = find_candidates(self.bank, vector, name, self.options, slice_, len(pictures))
                self._found[case, slice_, number] = found
        return self._found[case, slice_, target]


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
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    cases = live.cohort.unlabelled
    progress("stage", stage=STAGE, total=len(cases))
    for number, case in enumerate(cases):
        key = _key(live, dtype)
        if _known(folder, case) != key:
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
        "named": live.options.named,
        "dtype": str(dtype).removeprefix("torch."),
    }


def _known(folder: Path, case: Case) -> dict[str, Any] | None:
    try:
        return json.loads((folder / f"{case.id}.json").read_text(encoding="utf-8"))["key"]
    except (FileNotFoundError, KeyError, ValueError):
        return None
