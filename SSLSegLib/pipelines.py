"""The methods from end to end. Each function reads like its algorithm in the paper; the rooms do the work."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.errors import CohortError
from SSLSegLib.progress import Progress, silent
from SSLSegLib.tffs.options import TffsOptions

if TYPE_CHECKING:
    from SSLSegLib.evaluation.scores import CaseScores
    from SSLSegLib.pseudolabels.label import PseudoLabel
    from SSLSegLib.selftraining.folders import RoundFolder
    from SSLSegLib.selftraining.options import SelfTrainingOptions
    from SSLSegLib.selftraining.report import Outcome
    from SSLSegLib.selftraining.run import How
    from SSLSegLib.tffs.engine import TffsEngine
    from SSLSegLib.tffs.features import VolumeFeatures
    from SSLSegLib.tffs.template import LabelledTemplate
    from SSLSegLib.weights.loading import LoadedSam2

__all__ = [
    "METHOD",
    "LabelledCase",
    "Refined",
    "encode_labelled",
    "ensemble",
    "leave_one_out",
    "pseudo_label",
    "reliability",
    "ssl_medsam2",
]

METHOD = "TFFS-MedSAM2"


@dataclass(frozen=True)
class Refined:
    """What Algorithm 1 returns, and how it got there.

    Args:
        model: The refined model: the round whose folds are averaged
            (:func:`SSLSegLib.selftraining.model.load_model`, ``predict``, ``export``).
        outcome: Reports of all rounds, and why they ended.
    """

    model: "RoundFolder"
    outcome: "Outcome"


def ssl_medsam2(
    cohort: Cohort,
    pseudo_label_cases: Callable[[], Any],
    results: Mapping[str, Path],
    work: Path,
    training: "SelfTrainingOptions",
    **how: Unpack["How"],
) -> Refined:
    """Labels for the unlabelled cases and a model for new ones, from a few labelled cases (SSL-MedSAM2, Algorithm 1).

    Run again with the same arguments after any end, kill -9 included: what is finished is kept.

    Args:
        cohort: At least one labelled and one unlabelled case, checked before. References and test cases stay unseen.
        pseudo_label_cases: Writes the pseudo-labels that are missing in ``results``: :func:`pseudo_label` with a sink.
        results: Unlabelled case -> folder of its pseudo-label.
        work: Folder of the self-training (:mod:`SSLSegLib.selftraining.folders`).
        training: How to train.
        how: See :class:`SSLSegLib.selftraining.run.How`.

    Raises:
        SSLSegError: A case cannot be used, or a training fails.

    Example:
        >>> def f():
        ...     pseudo_label(cohort, medsam2, TffsOptions(), seed=42, sink=save)
        >>> ssl_medsam2(cohort, f, results, work, SelfTrainingOptions.of("quick")).model  # doctest: +SKIP
    """
    from SSLSegLib.selftraining.model import find_round
    from SSLSegLib.selftraining.rounds import self_train

    # Pseudo label initialization:   Y^u <- f(X^u | D^l)
    pseudo_label_cases()
    # While not converge:
    #     training set building:     D <- {D^l, (X^u, Y^u)}
    #     model refinement:          g <- train on D
    #     pseudo label updating:     Y^u <- g(X^u)
    outcome = self_train(cohort, results, work, training, **how)
    # Return refined model g
    return Refined(find_round(work, len(outcome.rounds)), outcome)


def pseudo_label(
    cohort: Cohort,
    model: "LoadedSam2",
    options: TffsOptions,
    *,
    seed: int,
    sink: Callable[["PseudoLabel"], None],
    progress: Progress = silent,
    skip: Collection[str] = (),
    scratch: Path | None = None,
    case_scratch: Path | None = None,
    engine: "TffsEngine | None" = None,
    labelled: "Sequence[LabelledCase] | None" = None,
) -> "TffsEngine":
    """Pseudo-label every unlabelled case without training (SSL-MedSAM2, Algorithm 2).

    Every slice goes through the image encoder once: labelled cases first, then each unlabelled case in turn. What is
    drawn at random depends on (seed, case, labelled case, class) only, so neither order nor resuming changes a result.

    Args:
        cohort: At least one labelled and one unlabelled case, checked before (:func:`check_cohort`).
        model: From :func:`SSLSegLib.weights.loading.load_sam2`.
        options: R, threshold, precision and so on.
        seed: From which all insertion positions follow.
        sink: Given each pseudo-label the moment it is ready.
        progress: Hears stages, tracked frames and results.
        skip: Ids of unlabelled cases that are finished already.
        scratch: Folder for the image features of labelled cases; in memory without it.
        case_scratch: Folder for those of the unlabelled case in hand; in memory without it.
        engine: One that has been used before, with the same model and options.
        labelled: The labelled cases as :func:`encode_labelled` gave them before with that engine.

    Returns:
        The engine, whose counts say how much was computed.

    Raises:
        SSLSegError: A case cannot be read, or no labelled case shows any class.
    """
    from SSLSegLib.tffs.engine import TffsEngine

    cohort.require(labelled=1, unlabelled=1)
    engine = engine or TffsEngine(model.model, options, model.device)
    waiting = [case for case in cohort.unlabelled if case.id not in skip]
    if not waiting:
        return engine
    if labelled is None:
        labelled = encode_labelled(engine, cohort, cohort.labelled, model.image_size, progress, scratch)
    tracking = _Tracking(progress, cohort, waiting, [labelled] * len(waiting), options.insertions)
    for case in waiting:
        began = time.monotonic()
        image = _encode(engine, cohort, case, model.image_size, tracking.encoding(case), case_scratch)
        sink(_segment(engine, cohort, case, image, labelled, model, options, seed, tracking))
        progress("result", case=case.id, seconds=round(time.monotonic() - began, 2))
    return engine


def leave_one_out(
    cohort: Cohort,
    model: "LoadedSam2",
    options: TffsOptions,
    *,
    seed: int,
    progress: Progress = silent,
    scratch: Path | None = None,
) -> list["CaseScores"]:
    """Leave one out: segment each labelled case from the others and score it against its own label.

    The honest estimate of quality before any unlabelled case is touched. Features are encoded once and used in both
    roles. It is a little pessimistic: the real run has one labelled case more.

    Returns:
        Scores of each labelled case, in the cohort's order.

    Raises:
        CohortError: There are fewer than two labelled cases.
    """
    from SSLSegLib.cases.volume import LabelMap
    from SSLSegLib.evaluation.scores import score_case
    from SSLSegLib.tffs.engine import TffsEngine

    if len(cohort.labelled) < 2:
        raise CohortError(
            "Leave-one-out needs at least two labelled cases: with one, nothing is left to predict it from.",
            remedy="Label one more case, or run and look at the results yourself.",
        )
    engine = TffsEngine(model.model, options, model.device)
    labelled = encode_labelled(engine, cohort, cohort.labelled, model.image_size, progress, scratch)
    others = [[other for other in labelled if other is not held_out] for held_out in labelled]
    tracking = _Tracking(progress, cohort, [each.case for each in labelled], others, options.insertions)
    scores = []
    for held_out, templates in zip(labelled, others, strict=True):
        image = _Image(held_out.features, held_out.geometry)
        found = _segment(engine, cohort, held_out.case, image, templates, model, options, seed, tracking)
        prediction = LabelMap(found.mask, held_out.geometry)
        truth = LabelMap(held_out.label, held_out.geometry)
        scores.append(score_case(held_out.case.id, prediction, truth, cohort.classes))
        progress("result", case=held_out.case.id, dice=round(scores[-1].mean("dice"), 4))
    return scores


def reliability(labelled: int) -> str:
    """What to think of a leave-one-out estimate over so few cases; empty where there are enough to trust the mean."""
    if labelled < 3:
        return (
            f"With {labelled} labelled cases each was predicted from one other: too few to say more than whether the "
            "method works at all here."
        )
    if labelled < 5:
        return f"With {labelled} labelled cases this is a rough estimate: look at the spread, not at the mean alone."
    return ""


def ensemble(
    engine: "TffsEngine",
    case_id: str,
    image: "_Image",
    segment: SegmentClass,
    labelled: Sequence["LabelledCase"],
    *,
    seed: int,
    insertions: int,
    progress: Progress = silent,
) -> tuple[np.ndarray, np.ndarray]:
    """Algorithm 2 for one class of one case: the mean over R x M insertions, and the variance between them.

    Labelled cases that do not show the class are left out, and the mean is over those used.

    Returns:
        Mean and variance of the probability, float32 (K, J, I) each; zero where no labelled case shows the class.
    """
    from SSLSegLib.tffs.ensemble import ProbabilitySums
    from SSLSegLib.tffs.positions import insertion_positions

    slices, in_plane = image.geometry.shape[0], tuple(image.geometry.shape[1:])
    sums = ProbabilitySums(slices, in_plane, engine.device)  # line 1
    for each in labelled:  # line 2
        template = each.template(engine, segment, in_plane)
        if template is None:
            continue
        positions = insertion_positions(seed, case_id, each.case.id, segment.name, slices, insertions)  # line 3
        engine.propagate(image.features, template, positions, in_plane, sums, progress)  # lines 4 to 7
    return sums.mean, sums.variance  # line 9


@dataclass(frozen=True)
class _Image:
    features: "VolumeFeatures"
    geometry: Any


@dataclass(eq=False)
class LabelledCase:
    """A labelled case ready to be inserted: encoded once, its templates made once per class and in-plane size.

    Args:
        case: The case.
        features: Image features of its slices.
        label: uint8 (K, J, I).
        geometry: Of both.
    """

    case: Case
    features: "VolumeFeatures"
    label: np.ndarray
    geometry: Any
    _templates: dict[tuple[str, tuple[int, int]], "LabelledTemplate | None"] = field(default_factory=dict)

    def shows(self, segment: SegmentClass) -> bool:
        """Whether any voxel has the class."""
        return bool((self.label == segment.value).any())

    def template(
        self, engine: "TffsEngine", segment: SegmentClass, in_plane: tuple[int, int]
    ) -> "LabelledTemplate | None":
        """The template of a class for unlabelled volumes of that in-plane size; None where the class is absent."""
        key = segment.name, in_plane
        if key not in self._templates:
            mask = self.label == segment.value
            self._templates[key] = engine.template(self.features, mask, in_plane) if mask.any() else None
        return self._templates[key]


def encode_labelled(
    engine: "TffsEngine",
    cohort: Cohort,
    cases: Sequence[Case],
    image_size: int,
    progress: Progress = silent,
    scratch: Path | None = None,
) -> list[LabelledCase]:
    """Read and encode labelled cases, each slice once."""
    from SSLSegLib.cases.reading import read_geometry, read_label

    total = sum(read_geometry(cohort, case).shape[0] for case in cases)
    progress("stage", stage=_ENCODING, total=total)
    done, encoded = 0, []
    for case in cases:

        def tell(event: str, *, done: int, before: int = done, case: Case = case, **_: Any) -> None:
            progress(event, stage=_ENCODING, done=before + done, total=total, case=case.id)

        folder = None if scratch is None else scratch / case.id
        image = _encode(engine, cohort, case, image_size, tell, folder)
        label = read_label(cohort, case)
        encoded.append(LabelledCase(case, image.features, label.array, label.geometry))
        done += len(image.features)
    return encoded


def _encode(
    engine: "TffsEngine", cohort: Cohort, case: Case, image_size: int, progress: Progress, folder: Path | None = None
) -> _Image:
    from SSLSegLib.cases.frames import slices_to_frames
    from SSLSegLib.cases.intensities import to_display_range
    from SSLSegLib.cases.reading import read_volume

    volume = read_volume(cohort, case)
    display = to_display_range(volume, cohort.modality, cohort.window)
    frames = _Frames(display, image_size, slices_to_frames)
    return _Image(engine.encode(frames, progress, folder=folder), volume.geometry)


@dataclass(frozen=True)
class _Frames:
    """Frames made when they are asked for: a whole volume of them would be large."""

    display: np.ndarray
    image_size: int
    convert: Callable[..., Any]

    def __len__(self) -> int:
        return self.display.shape[1]

    def __getitem__(self, index: slice) -> Any:
        return self.convert(self.display, self.image_size, range(*index.indices(len(self))))


def _segment(
    engine: "TffsEngine",
    cohort: Cohort,
    case: Case,
    image: _Image,
    labelled: Sequence[LabelledCase],
    model: "LoadedSam2",
    options: TffsOptions,
    seed: int,
    tracking: "_Tracking",
) -> "PseudoLabel":
    """All classes of one case, each on its own; then threshold, merge, largest component, uncertainty (line 10)."""
    from SSLSegLib.pseudolabels.label import build_pseudo_label, make_provenance

    probability, variance = [], []
    for segment in cohort.classes:
        if not any(each.shows(segment) for each in labelled):
            tracking.progress("warning", message=f"No labelled case shows '{segment.name}'.", case=case.id)
        mean, between = ensemble(
            engine,
            case.id,
            image,
            segment,
            labelled,
            seed=seed,
            insertions=options.insertions,
            progress=tracking.tracking(case),
        )
        probability.append(mean)
        variance.append(between)
    return build_pseudo_label(
        case.id,
        np.stack(probability),
        image.geometry,
        cohort.classes,
        variance=np.stack(variance),
        threshold=options.threshold,
        largest_component=options.largest_component,
        provenance=make_provenance(
            METHOD,
            seed=seed,
            labelled=[each.case.id for each in labelled],
            options=options.model_dump(mode="json"),
            weights=model.name,
            weights_sha256=model.sha256,
        ),
    )


_ENCODING, _TRACKING = "Encoding labelled cases", "Segmenting"


class _Tracking:
    """Turns the engine's count of frames per insertion into one count over all cases that are to be segmented."""

    def __init__(
        self,
        progress: Progress,
        cohort: Cohort,
        cases: Sequence[Case],
        labelled: Sequence[Sequence[LabelledCase]],
        insertions: int,
    ) -> None:
        from SSLSegLib.cases.reading import read_geometry

        self.progress = progress
        self._before = 0
        self._total = 0
        for case, others in zip(cases, labelled, strict=True):
            slices = read_geometry(cohort, case).shape[0]
            used = sum(each.shows(segment) for each in others for segment in cohort.classes)
            self._total += slices * min(insertions, slices) * used
        progress("stage", stage=_TRACKING, total=self._total)

    def encoding(self, case: Case) -> Progress:
        def tell(event: str, *, done: int, total: int, **_: Any) -> None:
            self.progress(event, stage=_TRACKING, done=self._before, total=self._total, case=case.id, encoded=done)

        return tell

    def tracking(self, case: Case) -> Progress:
        def tell(event: str, *, done: int, total: int, **_: Any) -> None:
            self.progress(event, stage=_TRACKING, done=self._before + done, total=self._total, case=case.id)
            if done == total:
                self._before += total

        return tell
