"""Memory and disk: estimated before, and got along with when it runs out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_job import contents

from SSLSegLib.errors import JobError
from SSLSegLib.jobs import segmenting
from SSLSegLib.jobs.estimate import Costs, Estimate, count_work, estimate, measure_costs, regions_shown
from SSLSegLib.jobs.events import read_events
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.retry import Attempt, is_out_of_memory, retry_smaller, smaller
from SSLSegLib.jobs.room import require_disk, require_room
from SSLSegLib.jobs.runner import run_job
from SSLSegLib.progress import silent
from SSLSegLib.pseudolabels.storage import load_pseudo_label
from SSLSegLib.tffs.chain import Tracker
from SSLSegLib.tffs.options import TffsOptions
from SSLSegLib.tffs.place import use_of_place
from SSLSegLib.weights.configuration import Sam2Configuration


def gpu_full():
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def attempts(first, **options):
    steps = [first]
    while (following := smaller(steps[-1], **options)) is not None:
        steps.append(following)
    return steps


def test_each_attempt_takes_less_and_the_cpu_comes_last_and_only_where_it_is_allowed():
    steps = attempts(Attempt("cuda:1"))
    assert [step.batch for step in steps] == [None, 8, 2, 1, 1]
    assert [step.features_on_disk for step in steps] == [False] * 4 + [True]
    assert {step.device for step in steps} == {"cuda:1"}
    assert attempts(Attempt("cuda:1"), cpu_allowed=True)[-1] == Attempt("cpu", 1, True)


def test_only_running_out_of_memory_is_tried_again():
    assert is_out_of_memory(gpu_full())
    assert is_out_of_memory(RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))

    def fail(attempt):
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape"):
        retry_smaller(fail, Attempt("cpu"), silent)


def test_where_nothing_smaller_is_left_it_says_what_could_be_done():
    def fail(attempt):
        raise gpu_full()

    with pytest.raises(JobError, match=r"cuda does not suffice.*--cpu-if-needed"):
        retry_smaller(fail, Attempt("cuda"), silent)


def test_the_memory_of_a_failed_attempt_is_free_before_the_next_one():
    import weakref

    alive = []

    def work(attempt):
        assert not any(reference() is not None for reference in alive), "the earlier attempt still holds its memory"
        big = torch.zeros(10)
        alive.append(weakref.ref(big))
        if attempt.batch != 1:
            raise gpu_full()
        return attempt

    assert retry_smaller(work, Attempt("cpu"), silent).batch == 1


def test_a_device_that_holds_one_chain_only_still_finishes_the_job_with_the_same_labels(
    tmp_path, small_manifest, small_finished, monkeypatch
):
    step = Tracker._step_batch

    def on_a_small_device(self, chains, *rest):  # a fake: the real step on a device too small for more than one
        if self.batch > 1:
            raise gpu_full()
        return step(self, chains, *rest)

    monkeypatch.setattr(Tracker, "_step_batch", on_a_small_device)
    job = Job.create(tmp_path / "job", small_manifest)
    assert run_job(job).status == "finished"
    warnings, others = (
        [event["message"] for event in read_events(each.events_path) if event["event"] == "warning"]
        for each in (job, small_finished)
    )
    ran_out = "The memory of cpu ran out; going on with 1 chain at a time, features in memory, on cpu."
    assert warnings == [ran_out, *others]
    for case in ("c1", "c2", "c3"):
        ours, theirs = (load_pseudo_label(each.result_folder(case)) for each in (job, small_finished))
        np.testing.assert_allclose(ours.probability, theirs.probability, atol=1e-4)


def test_a_job_too_large_for_memory_goes_on_with_features_on_disk_and_gives_the_same_bytes(
    tmp_path, small_manifest, small_finished, monkeypatch
):
    monkeypatch.setattr(segmenting, "WORTH_MEASURING", 0)
    monkeypatch.setattr(segmenting, "require_room", lambda found, folder, available: True)
    job = Job.create(tmp_path / "job", small_manifest)
    assert run_job(job).status == "finished"
    events = read_events(job.events_path)
    assert any("features on disk" in event.get("message", "") for event in events)
    told = next(event for event in events if event["event"] == "estimate")
    assert told["memory"] > told["memory_on_disk"] > 0
    assert contents(job) == contents(small_finished)
    metric = next(event for event in events if event["event"] == "metric")
    assert metric["encoded"] == 4 * 4, "measuring must not count as work"


def test_work_is_counted_as_the_engine_does_it(small_manifest, small_finished):
    parameters = small_manifest.checked_parameters()
    work = count_work(parameters.loaded_cohort(), parameters.options)
    done = next(event for event in read_events(small_finished.events_path) if event["event"] == "metric")
    assert work.encoded == done["encoded"]
    assert work.tracked <= done["tracked"] <= work.tracked + 4 * 2  # empty slices of the block are tracked besides
    assert work.prompted >= done["prompted"]
    assert count_work(parameters.loaded_cohort(), parameters.options, skip=["c1", "c2", "c3"]).tracked == 0


@pytest.mark.parametrize("asked", [None, True, False])
@pytest.mark.parametrize("trained_for_it", [True, False])
def test_whether_regions_are_shown_is_known_before_weights_are_loaded(asked, trained_for_it):
    configuration = Sam2Configuration(place_prompts=trained_for_it)
    told = use_of_place(asked, configuration) == "told"
    assert regions_shown(TffsOptions(place=asked), configuration) == told


def test_costs_are_measured_with_the_real_engine_and_grow_into_an_estimate(small_manifest):
    parameters = small_manifest.checked_parameters()
    segmenter = segmenting.Segmenter(small_manifest, silent)
    engine = segmenter._ready(segmenter._attempt)
    costs = measure_costs(engine, segmenter.model.image_size)
    assert costs.encode > 0
    assert costs.track + costs.attend > 0
    assert costs.feature_bytes == engine.encode(torch.rand(1, 3, 64, 64)).nbytes
    assert costs.template_bytes > 0
    work = count_work(parameters.loaded_cohort(), parameters.options)
    found = estimate(work, costs)
    assert found.memory - found.memory_on_disk == work.largest_case * costs.feature_bytes
    assert found.seconds > 0
    assert "of memory" in found.in_words()


@pytest.mark.parametrize(("threads", "seconds"), [(1, 120), (2, 60), (16, 30)])
def test_registrations_of_a_case_are_made_side_by_side_as_far_as_there_are_threads(threads, seconds, small_manifest):
    parameters = small_manifest.checked_parameters()
    counted = count_work(parameters.loaded_cohort(), parameters.options)
    nothing = {"encoded": 0, "prompted": 0, "tracked": 0, "attended": 0}
    work = replace(counted, **nothing, registered=12, together=4)
    free = {"encode": 0, "prompt": 0, "track": 0, "attend": 0, "feature_bytes": 1, "template_bytes": 1}
    assert estimate(work, Costs(**free, register=10, device="cpu", threads=threads)).seconds == seconds


def test_a_run_that_cannot_fit_is_refused_before_it_starts(tmp_path):
    fits = Estimate(seconds=1, memory=10, memory_on_disk=5, disk=10, scratch=1)
    assert require_room(fits, tmp_path, available=10) is False
    assert require_room(fits, tmp_path, available=7) is True
    with pytest.raises(JobError, match="of memory"):
        require_room(fits, tmp_path, available=4)
    with pytest.raises(JobError, match=r"1e\+09 GB of disk"):
        require_room(Estimate(seconds=1, memory=1, memory_on_disk=1, disk=10**18, scratch=1), tmp_path)
    with pytest.raises(JobError, match="may take"):
        require_disk(tmp_path, 10**18)
