"""The specialist of a job: a network that is trained once, read again ever after, and labels the job's cases."""

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from SSLSegLib.errors import JobError, WeightsError
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.labelling import Labelling
from SSLSegLib.unimatch.folders import RECORD, UniMatchFolder

if TYPE_CHECKING:
    from SSLSegLib.unimatch.model import TrainedNetwork

__all__ = ["WORK", "is_trained", "label_by_specialist", "memory_told", "remove_prepared", "require_packages"]

WORK = "unimatch"
"""Folder of the training inside the job."""


def is_trained(job: Job) -> bool:
    """Whether the training has ended with a model."""
    return (UniMatchFolder(job.folder / WORK).model / RECORD).is_file()


def label_by_specialist(labelling: Labelling, device: str, train: Callable[[UniMatchFolder], None]) -> None:
    """Label the cases that wait by the job's network; it is trained first where there is no whole one.

    Args:
        labelling: What to label.
        device: That reads and segments.
        train: Trains into the folder, from the last state there is.

    Raises:
        JobError: The network cannot be read although it has just been trained.
    """
    from SSLSegLib.unimatch.predict import predict_cases

    where = UniMatchFolder(labelling.job.folder / WORK)
    network = _read(where, device)
    if network is None:
        train(where)
        remove_prepared(where)
        network = _read(where, device)
    if network is None:
        raise JobError(f"The model in {where.model} cannot be read.", remedy="Check the disk and run the job again.")
    predict_cases(network, labelling.cohort, labelling.waiting(), labelling.keep, progress=labelling.progress)


def require_packages() -> None:
    """Refuse before any work where the packages of the training are not installed.

    Raises:
        JobError: Naming the first.
    """
    for package in ("accelerate", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise JobError(f"The Python package {package} is not installed.", remedy=f"Install {package}.")


def remove_prepared(where: UniMatchFolder) -> None:
    """Remove what was made for the training alone: it is large, and of no more use."""
    for folder in (where.slices, where.path / "vessa"):
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def memory_told() -> Iterator[None]:
    """Say in words what to do where a device has too little memory.

    Raises:
        JobError: It has.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise JobError(
            "The device has too little memory for this training.",
            remedy="Make a new job with a smaller --batch, --size or --preset, or on another device.",
        ) from error


def _read(where: UniMatchFolder, device: str) -> "TrainedNetwork | None":
    """The trained network, once there is a whole one."""
    from SSLSegLib.unimatch.model import load_model

    try:
        return load_model(where.model, device)
    except WeightsError:
        return None
