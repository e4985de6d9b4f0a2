"""TFFS-MedSAM2: pseudo-labels without training (paper 1, Algorithm 2)."""

import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.pipelines.encoding import EncodedCase, LabelledCase, encode_labelled, labelled_views
from SSLSegLib.pipelines.place import Alignment, ClassPlace, PlaceWithin, class_places, frames_to_track
from SSLSegLib.pipelines.tracking import Tracking
from SSLSegLib.progress import Progress, silent
from SSLSegLib.tffs.looks import looks, sharpened
from SSLSegLib.tffs.options import TffsOptions
from SSLSegLib.tffs.view import PLANES, View

if TYPE_CHECKING:
    from SSLSegLib.pseudolabels.label import PseudoLabel
    from SSLSegLib.tffs.engine import TffsEngine
    from SSLSegLib.weights.loading import LoadedSam2

__all__ = ["METHOD", "ensemble", "pseudo_label", "segment_case"]

METHOD = "TFFS-MedSAM2"


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

    Every slice goes through the image encoder once (where frames show the class's region once for each class and
    plane): labelled cases first, then each unlabelled case in turn. What is drawn at random depends on (seed, case,
    labelled case, class) only, so neither order nor resuming changes a result.

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
    from SSLSegLib.cases.reading import read_geometry
    from SSLSegLib.tffs.engine import TffsEngine

    cohort.require(labelled=1, unlabelled=1)
    engine = engine or TffsEngine(model.model, options, model.device)
    waiting = [case for case in cohort.unlabelled if case.id not in skip]
    if not waiting:
        return engine
    if labelled is None:
        labelled = encode_labelled(engine, cohort, cohort.labelled, model, progress, scratch)
    places = class_places(labelled, cohort.classes, options, model)
    geometries = [read_geometry(cohort, case) for case in waiting]
    tracking = Tracking(progress, (frames_to_track(places, geometry, options) for geometry in geometries))
    for case, geometry in zip(waiting, geometries, strict=True):
        began = time.monotonic()
        image = EncodedCase(engine, cohort, case, model.image_size, geometry, case_scratch, most=len(PLANES))
        sink(segment_case(engine, cohort, image, labelled, model, options, seed, tracking))
        progress("result", case=case.id, seconds=round(time.monotonic() - began, 2))
    return engine


def ensemble(
    engine: "TffsEngine",
    image: "EncodedCase",
    segment: SegmentClass,
    labelled: Sequence["LabelledCase"],
    where: ClassPlace,
    within: PlaceWithin | None,
    *,
    seed: int,
    told: bool,
    tracking: "Tracking",
) -> tuple[np.ndarray, np.ndarray]:
    """Algorithm 2 for one class of one case: the mean over R x M insertions, and the variance between them.

    Labelled cases that do not show the class are left out, and the mean is over those used. The insertions of a
    labelled case take the planes in turn; where the place is told the later ones are told what the others found
    (:mod:`SSLSegLib.tffs.looks`).

    Args:
        where: The place of the class in labelled cases: what frames show of them, and in which planes.
        within: Its place in the case, and what frames show of it; None where they show all and nothing is told.
        told: The network is told it; only for weights that were trained to be told.

    Returns:
        Mean and variance of the probability, float32 (K, J, I) each; zero where no frame looks.
    """
    from SSLSegLib.tffs.ensemble import ProbabilitySums, joined
    from SSLSegLib.tffs.positions import insertion_positions

    insertions, shape = engine.options.insertions, image.geometry.shape
    shown = [each for each in labelled if each.shows(segment)]
    planes = where.planes(image.geometry, insertions)
    progress = tracking.tracking(image.case)
    runs: dict[View, ProbabilitySums] = {}
    for some in looks(planes, insertions, len(shown), told=told):
        found = sharpened(joined(runs.items(), shape)[0]) if runs else None
        for each in some:
            case, view = shown[each.labelled], View() if within is None else within.views[each.plane]
            slices, *in_plane = view.size(shape)
            in_plane = tuple(in_plane)
            sums = runs.setdefault(view, ProbabilitySums(slices, in_plane, engine.device))  # line 1
            features = image.features(view, tracking.encoding(image.case))
            template = case.template(engine, segment, where.labelled_view(case, each.plane), in_plane)
            if template is None:
                continue
            drawn = insertion_positions(seed, image.case.id, case.case.id, segment.name, slices, insertions)  # line 3
            place = None
            if told:
                place = within.told(each.plane) if found is None else view.seen(found)
            engine.propagate(features, template, each.of(drawn), in_plane, sums, progress, place=place)  # lines 4 to 7
    return joined(runs.items(), shape)  # line 9


def segment_case(
    engine: "TffsEngine",
    cohort: Cohort,
    image: EncodedCase,
    labelled: Sequence[LabelledCase],
    model: "LoadedSam2",
    options: TffsOptions,
    seed: int,
    tracking: "Tracking",
) -> "PseudoLabel":
    """All classes of one case, each on its own; then threshold, merge, largest component, uncertainty (line 10).

    Where a class lies in the labelled cases, registered to this one, is told to the network, which then sees frames of
    that region; or averaged with its answer; or left out (:func:`~SSLSegLib.tffs.place.use_of_place`).
    """
    from SSLSegLib.pseudolabels.label import build_pseudo_label, make_provenance
    from SSLSegLib.tffs.place import use_of_place, with_place
    from SSLSegLib.tffs.region import CUT, share_at_edge

    use = use_of_place(options.place, model.configuration)
    places = class_places(labelled, cohort.classes, options, model)
    for each in labelled:
        each.encode(labelled_views(places.values(), each, options), tracking.encoding(image.case))
    alignment, views = Alignment(image, tracking.registering(image.case)), {}
    probability = np.zeros((len(cohort.classes), *image.geometry.shape), np.float32)
    variance = np.zeros_like(probability)
    for number, segment in enumerate(cohort.classes):
        where = places.get(segment.name)
        if where is None:
            tracking.progress("warning", message=f"No labelled case shows '{segment.name}'.", case=image.case.id)
            continue
        within = where.within(alignment) if use else None
        told = use == "told"
        probability[number], variance[number] = ensemble(
            engine, image, segment, labelled, where, within, seed=seed, told=told, tracking=tracking
        )
        if use == "averaged":
            probability[number] = with_place(probability[number], within.prior)
        if told:
            planes = where.planes(image.geometry, options.insertions)
            views[segment.name] = [within.views[plane] for plane in planes]
    how = {
        "place": use,
        "views": _shares(views) if use == "told" else None,
        "looks": 2 if use == "told" and options.insertions > 1 else 1,
    }
    label = build_pseudo_label(
        image.case.id,
        probability,
        image.geometry,
        cohort.classes,
        variance=variance,
        threshold=options.threshold,
        largest_component=options.largest_component,
        provenance=make_provenance(
            METHOD,
            seed=seed,
            labelled=[each.case.id for each in labelled],
            options=options.model_dump(mode="json") | how,
            weights=model.name,
            weights_sha256=model.sha256,
        ),
    )
    for segment in cohort.classes:
        shown = views.get(segment.name)
        if shown and share_at_edge(label.mask == segment.value, shown[0].region) > CUT:
            tracking.progress(
                "warning",
                message=f"'{segment.name}' reaches the edge of the region where it was looked for: it may be "
                "cut there. Look at it, or run again without its place (--no-place).",
                case=image.case.id,
            )
    return label


def _shares(views: dict[str, list[View]]) -> dict[str, list[dict[str, Any]]]:
    return {name: [{"plane": view.plane, "shares": view.shares} for view in some] for name, some in views.items()}
