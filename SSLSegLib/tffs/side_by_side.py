"""Computations that do not depend on each other, side by side, one on each thread of the CPU.

Many small ones gain nothing from threads within each: those wait for each other longer than they work.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["side_by_side"]


@contextmanager
def side_by_side(workers: int) -> "Iterator[Callable[..., Iterator[Any]]]":
    """Within, what is given is used as ``map``: results come in order, each as soon as it and those before are there.

    Each worker computes with one of PyTorch's threads; modes that belong to a thread (no gradients, autocast) it enters
    itself. Who leaves early, by an error too, waits for what is under way; the rest is not begun.

    Args:
        workers: How many at once; with fewer than two it is ``map``, on this thread with all of its threads.
    """
    if workers < 2:
        yield map
        return
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # some of PyTorch's libraries have one number for all threads
