"""Pseudo-labelling the cases of a ``tffs`` job in one process: here, or on a worker of a cluster."""

import dataclasses
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from SSLSegLib.errors import JobError
from SSLSegLib.jobs.estimate import Estimate, count_work, estimate, measure_costs
from SSLSegLib.jobs.manifest import Manifest
from SSLSegLib.jobs.retry import Attempt, retry_smaller
from SSLSegLib.jobs.room import require_room
from SSLSegLib.progress import Progress

if TYPE_CHECKING:
    from SSLSegLib.jobs.tffs import TffsParameters
    from SSLSegLib.pipelines import LabelledCase
    from SSLSegLib.pseudolabels.label import PseudoLabel
    from SSLSegLib.tffs.engine import TffsEngine, WorkCounts
    from SSLSegLib.weights.loading import LoadedSam2

__all__ = ["WORTH_MEASURING", "Segmenter", "load_model"]

WORTH_MEASURING = 500
"""Frames to track above which a run is estimated before it starts: measuring takes as long as about ten of them."""


def load_model(manifest: Manifest, parameters: "TffsParameters", progress: Progress) -> "LoadedSam2":
    """The weights of a manifest on its device.

    Raises:
        WeightsError, DeviceError: See :func:`~SSLSegLib.weights.loading.load_sam2`.
        JobError: The weights are others than when the manifest was made.
    """
    import torch

    from SSLSegLib.weights.loading import load_sam2

    torch.set_num_threads(parameters.threads)
    model = load_sam2(parameters.weights, parameters.device)
    if model.sha256 != manifest.inputs["weights"].sha256:
        raise JobError("The weights are others than when the job was made.", remedy="Start a new job.")
    progress("device", device=str(model.device), outcome=model.device_outcome)
    return model


class Segmenter:
    """The model, the cohort and, once they are encoded, the labelled cases of one manifest.

    Args:
        manifest: Of kind ``tffs``, or another whose parameters hold those of the pseudo-labelling.
        progress: Hears of the device.
        cpu_allowed: Whether the CPU may take over where the memory of the GPU does not suffice at all.

    Raises:
        WeightsError, DeviceError: See :func:`~SSLSegLib.weights.loading.load_sam2`.
        JobError: The weights are others than when the manifest was made.
    """

    def __init__(self, manifest: Manifest, progress: Progress, *, cpu_allowed: bool = False) -> None:
        self.manifest = manifest
        self._cpu_allowed = cpu_allowed
        self.parameters = manifest.checked_parameters()
        self.cohort = self.parameters.loaded_cohort()
        self.model = load_model(manifest, self.parameters, progress)
        self._attempt = Attempt(str(self.model.device), self.parameters.options.batch)
        self._engine: TffsEngine | None = None
        self._labelled: list[LabelledCase] | None = None

    def estimate(self, folder: Path, progress: Progress, *, skip: Collection[str] = ()) -> Estimate | None:
        """Measure costs, say what the run will take, and refuse it where memory or disk cannot hold it.

        Returns:
            None where the run is too short to be worth measuring.
        """
        from SSLSegLib.pipelines.place import zoomed

        options = self.parameters.options
        work = count_work(self.cohort, options, skip=skip, zoomed=zoomed(options, self.model))
        if work.tracked < WORTH_MEASURING:
            return None
        progress("stage", stage="Estimating time and memory", total=None)
        found = estimate(work, measure_costs(self._ready(self._attempt), self.model.image_size))
        progress("estimate", **{name: round(value) for name, value in dataclasses.asdict(found).items()})
        available = None
        if self.model.device.type == "cuda":
            import torch

            available = torch.cuda.mem_get_info(self.model.device)[0]
        if require_room(found, folder, available=available):
            self._attempt = dataclasses.replace(self._attempt, features_on_disk=True)
            progress("warning", message=f"Memory is short: going on with {self._attempt.in_words()}.")
        return found

    def segment(
        self,
        case_ids: Callable[[], Collection[str]],
        sink: Callable[["PseudoLabel"], None],
        progress: Progress,
        *,
        scratch: Path,
        keep_labelled: bool = False,
    ) -> "WorkCounts":
        """Pseudo-label cases; with less memory again where it runs out.

        Args:
            case_ids: Says which cases are still to be done; asked before each attempt.
            sink: Given each pseudo-label the moment it is ready.
            progress: Hears stages and tracked frames.
            scratch: Folder for image features.
            keep_labelled: Keep the encoded labelled cases for the next call.

        Returns:
            How much has been computed.

        Raises:
            JobError: Memory does not suffice for the smallest attempt.
        """
        from SSLSegLib.pipelines import encode_labelled, pseudo_label

        def work(attempt: Attempt) -> "WorkCounts":
            engine = self._ready(attempt)
            wanted = set(case_ids())
            cases = tuple(case for case in self.cohort.cases if case.role == "labelled" or case.id in wanted)
            if self._labelled is None and wanted and keep_labelled:
                self._labelled = encode_labelled(
                    engine, self.cohort, self.cohort.labelled, self.model, progress, scratch / "labelled"
                )
            pseudo_label(
                self.cohort.model_copy(update={"cases": cases}).at(self.cohort.folder),
                self.model,
                engine.options,
                seed=self.manifest.seed,
                sink=sink,
                progress=progress,
                scratch=scratch / "labelled",
                case_scratch=scratch / "case" if attempt.features_on_disk else None,
                engine=engine,
                labelled=self._labelled,
            )
            return engine.counts

        return retry_smaller(work, self._attempt, progress, cpu_allowed=self._cpu_allowed)

    def _ready(self, attempt: Attempt) -> "TffsEngine":
        """The engine of an attempt; another attempt than before drops everything that the earlier one held."""
        import torch

        from SSLSegLib.tffs.engine import TffsEngine
        from SSLSegLib.weights.sam2_model import place_sam2

        if self._engine is not None and attempt == self._attempt:
            return self._engine
        self._attempt, self._engine, self._labelled = attempt, None, None
        if str(self.model.device) != attempt.device:
            device = torch.device(attempt.device)
            self.model = dataclasses.replace(
                self.model,
                model=place_sam2(self.model.model, device),
                device=device,
                device_outcome="CPU, because the memory of the GPU did not suffice.",
            )
        options = self.parameters.options.model_copy(update={"batch": attempt.batch})
        self._engine = TffsEngine(self.model.model, options, self.model.device)
        return self._engine
