"""What a run will take, before it starts: time, memory and disk, from costs measured on this machine.

The work of TFFS is countable from headers: slices to encode, slices to prompt, frames to track (Algorithm 2 has R
insertions per class and pair of cases). What one of each costs is measured on a few random slices with the real model.
"""

import itertools
import math
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from SSLSegLib.cases.cohort import Cohort

if TYPE_CHECKING:
    from SSLSegLib.cases.geometry import Geometry
    from SSLSegLib.tffs.attention import KeyValues
    from SSLSegLib.tffs.engine import TffsEngine
    from SSLSegLib.tffs.options import TffsOptions
    from SSLSegLib.weights.configuration import Sam2Configuration

__all__ = [
    "Costs",
    "Estimate",
    "Work",
    "count_cases",
    "count_work",
    "estimate",
    "estimate_run",
    "measure_costs",
    "regions_shown",
]

_PROGRAM = 1.2e9  # bytes: Python with torch, SimpleITK and the weights
_RESULT_BYTES = 16  # a voxel: uncertainty, spread and two label maps, unpacked
_RESULT_BYTES_A_CLASS = 4


@dataclass(frozen=True)
class Work:
    """How much there is to compute and to keep.

    Args:
        encoded: Slices through the image encoder, once for each view; at most.
        prompted: Labelled slices through the prompt path, over all classes; at most, known from headers alone.
        tracked: Frames tracked (insertions x slices, over pairs and classes); at most.
        attended: The sum over tracked frames of the labelled slices that each attends to.
        labelled_slices, largest_case: Slices of all labelled cases over all views, and of the largest unlabelled one
            over the planes of a class.
        longest_template: Slices of the longest labelled case.
        registered: Pairs of a labelled and an unlabelled case.
        together: How many of those an unlabelled case is in.
        voxels, largest_voxels: Of all unlabelled cases still to do, and of the largest.
        classes, channels: How many.
        told: Volumes kept of the place and of what a first look found.
    """

    encoded: int
    prompted: int
    tracked: int
    attended: int
    labelled_slices: int
    largest_case: int
    longest_template: int
    registered: int
    together: int
    voxels: int
    largest_voxels: int
    classes: int
    channels: int
    told: int


@dataclass(frozen=True)
class Costs:
    """What one unit of each costs here.

    Args:
        encode, prompt, track: Seconds a slice; ``track`` without the labelled slices attended to.
        attend: Seconds for each labelled slice that a tracked frame attends to.
        register: Seconds for the registration of a pair of cases by one thread.
        feature_bytes: Image features of a slice.
        template_bytes: Projected keys and values of a labelled slice.
        device: Where they were measured.
        threads: Pairs of cases that are registered side by side there.
    """

    encode: float
    prompt: float
    track: float
    attend: float
    register: float
    feature_bytes: int
    template_bytes: int
    device: str
    threads: int = 1


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    Args:
        seconds: Of computing; the report comes on top.
        memory: Bytes at the peak with the features of the case in hand in memory; on a GPU without the program.
        memory_on_disk: The same with those features in files.
        disk: Bytes that results may take at most, and scratch files while it runs.
        scratch: Those of the scratch files.
    """

    seconds: float
    memory: int
    memory_on_disk: int
    disk: int
    scratch: int

    def in_words(self) -> str:
        """One line for people."""
        memory, disk = self.memory / 1e9, max(self.disk, 1e8) / 1e9
        return f"about {_duration(self.seconds)}, {memory:.1f} GB of memory, {disk:.1f} GB of disk"


def estimate_run(
    cohort: Cohort, weights: str, options: "TffsOptions", *, device: str = "auto", threads: int | None = None
) -> Estimate:
    """What pseudo-labelling a cohort will take on this machine, for a look before a job is made.

    Loads the weights and measures for about a second (the bundled model) to half a minute (large models on a CPU); call
    it in a child process where a window must not stand still.

    Raises:
        SSLSegError: The cohort, the weights or the device cannot be used.
    """
    import torch

    from SSLSegLib.pipelines.place import zoomed
    from SSLSegLib.tffs.engine import TffsEngine
    from SSLSegLib.weights.loading import load_sam2

    if threads is not None:
        torch.set_num_threads(threads)
    model = load_sam2(weights, device)
    engine = TffsEngine(model.model, options, model.device)
    work = count_work(cohort, options, zoomed=zoomed(options, model))
    return estimate(work, measure_costs(engine, model.image_size))


def count_work(cohort: Cohort, options: "TffsOptions", *, skip: Collection[str] = (), zoomed: bool = False) -> Work:
    """Count the work of a cohort from the headers of its images.

    Args:
        cohort: The cohort.
        options: R and the limit on prompted slices.
        skip: Ids of cases that are finished.
        zoomed: Frames show regions of classes (:func:`SSLSegLib.pipelines.place.zoomed`).

    Raises:
        CaseError: An image is missing or damaged.
    """
    from SSLSegLib.cases.reading import read_geometry

    return count_cases(
        [read_geometry(cohort, case) for case in cohort.labelled],
        [read_geometry(cohort, case) for case in cohort.unlabelled if case.id not in skip],
        options,
        classes=len(cohort.classes),
        channels=max((len(case.images) for case in cohort.unlabelled), default=1),
        zoomed=zoomed,
    )


def count_cases(
    labelled: "Sequence[Geometry]",
    unlabelled: "Sequence[Geometry]",
    options: "TffsOptions",
    *,
    classes: int,
    channels: int = 1,
    zoomed: bool = False,
) -> Work:
    """:func:`count_work` of cases whose grids are known: reads nothing.

    Args:
        labelled, unlabelled: The grids of all labelled cases and of the unlabelled ones to do.
        options, zoomed: See there.
        classes, channels: How many.
    """
    from SSLSegLib.tffs.looks import looks
    from SSLSegLib.tffs.view import PLANES, planes_worth, slices_at_most

    views = classes if zoomed else 1  # of a slice in each plane

    of_labelled = planes_worth(labelled)[: options.insertions] if zoomed else PLANES[:1]

    def planes(case: "Geometry") -> tuple[int, ...]:
        return of_labelled if len(planes_worth([case])) > 1 else PLANES[:1]

    def seen(case: "Geometry", some: tuple[int, ...]) -> int:
        return sum(slices_at_most(case.shape, plane) for plane in some)

    limit = options.max_conditioning_slices or math.inf
    prompted = [[min(slices_at_most(case.shape, plane), limit) for plane in of_labelled] for case in labelled]
    longest = [max(some, default=0) for some in prompted]
    tracked = attended = 0
    for case in unlabelled:
        for each in itertools.chain(*looks(planes(case), options.insertions, len(labelled), told=zoomed)):
            slices = slices_at_most(case.shape, each.plane)
            frames = slices * len(each.of(range(min(options.insertions, slices)))) * classes
            tracked += frames
            attended += frames * longest[each.labelled]
    labelled_slices = sum(seen(case, of_labelled) for case in labelled) * views
    voxels = [math.prod(case.shape) for case in unlabelled]
    return Work(
        encoded=(labelled_slices if unlabelled else 0) + sum(seen(case, planes(case)) for case in unlabelled) * views,
        prompted=int(sum(map(sum, prompted))) * classes * len({case.in_plane for case in unlabelled}),
        tracked=tracked,
        attended=int(attended),
        labelled_slices=labelled_slices,
        largest_case=max((seen(case, planes(case)) for case in unlabelled), default=0),
        longest_template=int(max(longest, default=0)),
        registered=len(labelled) * len(unlabelled) if zoomed else 0,
        together=max(len(labelled), 1),
        voxels=sum(voxels),
        largest_voxels=max(voxels, default=0),
        classes=classes,
        channels=channels,
        told=3 if zoomed else 0,
    )


def regions_shown(options: "TffsOptions", configuration: "Sam2Configuration") -> bool:
    """:func:`SSLSegLib.pipelines.place.zoomed` before any weights are loaded: imports no torch."""
    return configuration.place_prompts and options.place is not False


def measure_costs(engine: "TffsEngine", image_size: int, *, slices: int = 3) -> Costs:
    """Time the real engine on a few slices of noise: a second or so with the bundled model, less on a GPU.

    The engine's counts are left as they were.
    """
    import torch

    from SSLSegLib.tffs.engine import WorkCounts
    from SSLSegLib.tffs.ensemble import ProbabilitySums
    from SSLSegLib.tffs.registration import registered_at_once, registration_device

    counts, engine.counts = engine.counts, WorkCounts()
    frames = torch.rand(slices, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    size = (image_size // 4, image_size // 4)
    masks = {number: torch.zeros(slices, *size, dtype=torch.bool) for number in (1, slices)}
    for number, mask in masks.items():
        mask[:number, size[0] // 4 : size[0] // 2, size[1] // 4 : size[1] // 2] = True
    engine.encode(frames[:1])  # the first call of anything is slower
    encode, features = _timed(engine, lambda: engine.encode(frames))
    prompt, tracking, template_bytes = 0.0, {}, 0
    for number, mask in masks.items():
        prompt, template = _timed(engine, lambda mask=mask: engine.template(features, mask, size))

        def track(template=template) -> None:
            sums = ProbabilitySums(slices, size, engine.device)
            engine.propagate(features, template, [0], size, sums)

        track()  # projects the keys
        template_bytes = sum(_nbytes(part) for part in (template.keys or [])) // number
        tracking[number] = min(_timed(engine, track)[0] for _ in range(2)) / slices
    engine.counts = counts
    attend = max(tracking[slices] - tracking[1], 0.0) / (slices - 1)
    return Costs(
        encode=encode / slices,
        prompt=prompt / slices,
        track=max(tracking[1] - attend, 0.0),
        attend=attend,
        register=_registration(engine),
        feature_bytes=features.nbytes // slices,
        template_bytes=template_bytes,
        device=str(engine.device),
        threads=registered_at_once(registration_device(engine.device)),
    )


def estimate(work: Work, costs: Costs) -> Estimate:
    """Time, memory and disk of the given work at the given costs."""
    seconds = (
        work.encoded * costs.encode
        + work.prompted * costs.prompt
        + work.tracked * costs.track
        + work.attended * costs.attend
        + work.registered * costs.register / min(costs.threads, work.together)
    )
    # Image and display range; sums of p and p^2, of all runs and of those in hand; maps of every class and their merge.
    arrays = 4 * work.largest_voxels * (2 * work.channels + 4 + 2 * work.classes + 4 + work.told)
    program = 0 if costs.device.startswith("cuda") else _PROGRAM
    on_disk = int(program + arrays + work.longest_template * costs.template_bytes)
    scratch = work.labelled_slices * costs.feature_bytes
    results = work.voxels * (_RESULT_BYTES + _RESULT_BYTES_A_CLASS * work.classes)
    return Estimate(
        seconds=seconds,
        memory=on_disk + work.largest_case * costs.feature_bytes,
        memory_on_disk=on_disk,
        disk=results + scratch,
        scratch=scratch,
    )


def _timed(engine: "TffsEngine", work):
    import torch

    began = time.perf_counter()
    result = work()
    if engine.device.type == "cuda":
        torch.cuda.synchronize(engine.device)
    return time.perf_counter() - began, result


def _registration(engine: "TffsEngine") -> float:
    """Seconds for a pair, from one with a part of its steps."""
    from SSLSegLib.tffs.precision import computing
    from SSLSegLib.tffs.registration import FINE_SIZE, ITERATIONS, registrable, registration_device

    volume = np.random.default_rng(0).random(FINE_SIZE, np.float32)
    device = registration_device(engine.device)
    some = ITERATIONS // 10
    with computing("exact", device, one_thread=True):
        fixed = registrable(volume, device=device)
        search, _ = _timed(engine, lambda: fixed.displacements(fixed, iterations=0))
        both, _ = _timed(engine, lambda: fixed.displacements(fixed, iterations=some))
    return search + max(both - search, 0.0) * ITERATIONS / some


def _nbytes(keys: "KeyValues") -> int:
    return sum(part.numel() * part.element_size() for part in keys if part is not None)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
