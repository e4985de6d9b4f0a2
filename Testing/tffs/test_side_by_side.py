import threading

import numpy as np
import pytest
import torch
from deformed_volumes import image, pair

from SSLSegLib.tffs.registration import registered, registered_at_once, registrable
from SSLSegLib.tffs.side_by_side import side_by_side


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    assert torch.get_num_threads() == 3, "as it was"
    torch.set_num_threads(before)


def test_as_many_as_asked_for_are_computed_at_once_by_one_thread_each_and_come_in_order():
    meeting = threading.Barrier(3, timeout=30)

    def work(number):
        meeting.wait()  # all are under way
        return number * number, torch.get_num_threads()

    with side_by_side(3) as mapped:
        assert list(mapped(work, range(6))) == [(number**2, 1) for number in range(6)]


def test_one_alone_has_all_threads_and_is_computed_here():
    here = threading.current_thread()
    with side_by_side(1) as mapped:
        found = list(mapped(lambda _: (threading.current_thread(), torch.get_num_threads()), range(4)))
    assert found == [(here, 3)] * 4


def test_an_error_ends_it():
    def work(number):
        if number == 1:
            raise ValueError("no")
        return number

    def all_of_them():
        with side_by_side(2) as mapped:
            yield from mapped(work, range(9))

    found = all_of_them()
    assert next(found) == 0
    with pytest.raises(ValueError, match="no"):
        list(found)


def test_the_rest_is_not_begun_when_one_leaves():
    begun, leaving = [], threading.Event()

    def work(number):
        begun.append(number)
        leaving.wait(0 if number == 0 else 30)

    def one_of_many():
        with side_by_side(2) as mapped:
            next(mapped(work, range(1000)))
            threading.Timer(0.2, leaving.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        one_of_many()
    assert len(begun) < 10


def test_registrations_are_those_of_one_thread():
    moving, fixed, _ = pair((20, 40, 40))
    one = registrable(image(fixed))
    others = [registrable(image(moving, seed=seed)) for seed in (1, 2)]
    with torch.inference_mode():  # as in jobs
        found = list(registered(one, others))
    torch.set_num_threads(1)
    for some, other in zip(found, others, strict=True):
        for each, alone in zip(some, one.displacements(other), strict=True):
            np.testing.assert_array_equal(each.voxels, alone.voxels)
            np.testing.assert_array_equal(each.laid, alone.laid)
            np.testing.assert_array_equal(each.unlike, alone.unlike)
    torch.set_num_threads(3)


def test_pairs_are_registered_one_on_each_thread_and_on_a_gpu_one_by_one():
    assert registered_at_once(torch.device("cpu")) == 3
    assert registered_at_once(torch.device("cuda", 0)) == 1
