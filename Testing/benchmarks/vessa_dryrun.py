"""A VESSA of true size with random weights through stage 1 and inference, on whatever machine is at hand.

Nothing is learned and masks are noise: what counts is that every number has the precision that it should have, and what
memory and time it takes. Weights are a block of noise repeated: to draw two thousand million numbers takes minutes.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
from transformers import Qwen3VLForConditionalGeneration
from transformers.initialization import no_init_weights

from SSLSegLib.cases.phantoms import make_phantom_cohort
from SSLSegLib.vessa.configuration import VessaConfiguration, tiny_language
from SSLSegLib.vessa.estimate import estimate_memory, true_size
from SSLSegLib.vessa.features import sam2_features
from SSLSegLib.vessa.model import Vessa, build_vessa
from SSLSegLib.vessa.options import TrainingOptions, VessaOptions
from SSLSegLib.vessa.pairs import prepare_data
from SSLSegLib.vessa.saving import LoadedVessa
from SSLSegLib.vessa.segment import segment_cohort
from SSLSegLib.vessa.slices import CohortSlices
from SSLSegLib.vessa.templates import TemplateBank
from SSLSegLib.vessa.train import StageOne
from SSLSegLib.weights.loading import load_sam2

__all__ = ["dryrun"]

_GIGA = 1e9


def dryrun(arguments: argparse.Namespace) -> None:
    """Build, segment a scan, train some updates at batch 1; print memory and seconds beside the estimate."""
    torch.set_num_threads(1)
    before = _resident()
    language = tiny_language() if arguments.language == "tiny" else true_size(arguments.language)
    if arguments.layers:
        language.architecture["text_config"]["num_hidden_layers"] = arguments.layers
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        shape = (arguments.slices, *arguments.shape[1:])
        cohort = make_phantom_cohort(
            folder / "cohort", seed=1, labelled=4, unlabelled=1, test=0, classes=("liver",), shape=shape
        )
        with _Watched("building it"):
            sam2 = load_sam2(arguments.weights, "cpu")
            with no_init_weights(), _tied():
                model = build_vessa(VessaConfiguration(sam2=sam2.configuration, language=language), sam2=sam2.model)
            _fill(model)
        features = sam2_features(sam2.model)
        vessa = LoadedVessa(model, "dry run", "0" * 64, torch.device("cpu"), "dry run")
        bank = TemplateBank.of(CohortSlices(cohort), features)
        how, labels = VessaOptions(templates="best", batch=1), []
        # First: memory that a training has given back would still count as the process's.
        with _Watched(f"segmenting {arguments.slices} slices, one pair at a time") as segmenting:
            segment_cohort(cohort, vessa, bank, how, seed=1, sink=labels.append, features=features)
        options = TrainingOptions(steps=10, batch=1, accumulate=1, bank_part=0.25, validation_part=0.1)
        data = prepare_data(CohortSlices(cohort), features, options)
        trainer = StageOne(folder / "stage1", model, data, options, cpu=True)
        pairs, updates = data.pairs(options), []
        for number in range(arguments.updates):
            with _Watched(f"update {number + 1} of stage 1") as update:
                losses = trainer.one_update(pairs)
            updates.append(update)
            print("   ", ", ".join(f"{name} {value:.3f}" for name, value in losses.items()), flush=True)
        _check_precision(model)
    estimated = estimate_memory(language)
    print(f"\n{arguments.language}, {estimated.parameters / 1e9:.2f} G parameters; {before:.1f} GB before anything")
    print("| | estimate, without SAM2 and framework | peak, the whole process | seconds |")
    print("| --- | --- | --- | --- |")
    each = segmenting.seconds / arguments.slices
    print(f"| inference, one pair | {estimated.inference:.1f} GB | {segmenting.peak:.1f} GB | {each:.1f} |")
    for update in updates:
        print(f"| training, batch 1 | {estimated.training:.1f} GB | {update.peak:.1f} GB | {update.seconds:.0f} |")


@contextmanager
def _tied() -> Iterator[None]:
    """Input and output matrix are one all the same, which is done where weights are drawn."""
    with mock.patch.object(Qwen3VLForConditionalGeneration, "init_weights", lambda self: self.tie_weights()):
        yield


def _fill(model: Vessa) -> None:
    """Noise for matrices, one for the weights of norms, zero for the rest."""
    block = 0.02 * torch.randn(1 << 20)
    norms = {id(each.weight) for each in model.language.modules() if "Norm" in type(each).__name__}
    with torch.no_grad():
        for parameter in model.language.parameters():
            if id(parameter) in norms:
                parameter.fill_(1)
            elif parameter.ndim == 1:
                parameter.zero_()
            else:
                for part in parameter.view(-1).split(len(block)):
                    part.copy_(block[: len(part)])


def _check_precision(model: Vessa) -> None:
    frozen = getattr(torch, model.configuration.language.dtype)
    wrong = [
        name
        for name, each in model.language.named_parameters()
        if each.dtype != (torch.float32 if each.requires_grad else frozen) or not torch.isfinite(each).all()
    ]
    print(f"    of wrong precision, or no numbers any more: {wrong[:5] or 'none'}", flush=True)


class _Watched:
    """Wall seconds, and the largest resident memory in between in gigabytes."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> "_Watched":
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        except OSError:
            print("    (peaks are those since the start)")
        self._began, self._processor = time.monotonic(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds, processor = time.monotonic() - self._began, time.process_time() - self._processor
        self.peak = _resident("VmHWM")
        now = _resident()
        print(
            f"{self.what}: {self.seconds:.0f} s ({processor:.0f} of processor), peak {self.peak:.2f} GB, then {now:.2f}"
        )


def _resident(name: str = "VmRSS") -> float:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / _GIGA
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024 / _GIGA
