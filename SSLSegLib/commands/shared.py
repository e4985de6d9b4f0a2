"""What the commands share: options that several have, and how errors and scores look."""

import errno
import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from SSLSegLib.errors import SSLSegError

if TYPE_CHECKING:
    from SSLSegLib.cases.cohort import Cohort
    from SSLSegLib.evaluation.scores import CaseScores
    from SSLSegLib.tffs.options import TffsOptions

__all__ = [
    "BUNDLED",
    "BatchOption",
    "CohortArgument",
    "Commands",
    "CpuIfNeededOption",
    "DeviceOption",
    "DevicesOption",
    "InsertionsOption",
    "JobFolderOption",
    "KeepAllOption",
    "PlaceOption",
    "Precision",
    "PrecisionOption",
    "Preset",
    "PresetOption",
    "ReportOption",
    "ResampleOption",
    "SceneOption",
    "SchedulerOption",
    "SeedOption",
    "StepsOption",
    "ThreadsOption",
    "ThresholdOption",
    "TrainingPreset",
    "WeightsOption",
    "console",
    "load_checked_cohort",
    "print_scores",
    "say",
    "tffs_options",
]

BUNDLED = "sslseg-small"


# Of a place, not of the program: these errors need no traceback.
_PLACES = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG),
)


class PipeConsole(Console):
    """A console whose reader may go away (``| head``): the work goes on, unheard."""

    def on_broken_pipe(self) -> None:
        """Called when the reader is gone."""
        self.quiet = True
        _write_to_nobody()


console = PipeConsole()


def _write_to_nobody() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # also what is flushed at the very end


class Commands(TyperGroup):
    """The root of the command line. Errors for people are one sentence and exit code 2; others leave a log and 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:  # nobody reads what is printed any more, and there is nobody to tell
            _write_to_nobody()
            return None
        except SSLSegError as error:
            _say(str(error))
            raise typer.Exit(2) from None
        except (typer.Exit, typer.Abort, KeyboardInterrupt):
            raise
        except OSError as error:
            if error.errno not in _PLACES:
                raise self._unexpected(error) from None
            problem = f"{error.filename or 'A file'} cannot be read or written: {error.strerror}."
            _say(f"{problem} What to do: Check path, rights and space there, or name another folder.")
            raise typer.Exit(2) from None
        except Exception as error:
            if type(error).__module__.startswith(("click", "typer")):
                raise  # wrong use, which the parser explains itself
            raise self._unexpected(error) from None

    def _unexpected(self, error: Exception) -> typer.Exit:
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        log = Path(tempfile.gettempdir()) / f"sslseg-error-{stamp}.log"
        log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        _say(f"Unexpected error: {type(error).__name__}: {error}. The details are in {log}.")
        return typer.Exit(1)


def _say(message: str) -> None:
    Console(stderr=True).print(message, style="red", soft_wrap=True, highlight=False, markup=False)


class Preset(StrEnum):
    """Named sets of options."""

    fast = "fast"
    balanced = "balanced"
    paper = "paper"


class TrainingPreset(StrEnum):
    """How long and how large a training is."""

    quick = "quick"
    standard = "standard"
    paper = "paper"


class Precision(StrEnum):
    """How exactly numbers are computed."""

    exact = "exact"
    fast = "fast"
    official = "official"


CohortArgument = Annotated[Path, typer.Argument(help="cohort.json, or the folder it lies in.")]
WeightsOption = Annotated[str, typer.Option(help="Name in the catalogue (see `weights list`) or path of a file.")]
PresetOption = Annotated[Preset | None, typer.Option(help="Fills in what is not given: fast, balanced, paper.")]
InsertionsOption = Annotated[
    int | None, typer.Option("--insertions", "-R", min=1, help="R, insertions per pair of cases. Default: 5.")
]
PrecisionOption = Annotated[Precision | None, typer.Option(help="exact (default), fast or official.")]
ThresholdOption = Annotated[
    float | None, typer.Option(min=0.01, max=0.99, help="Foreground above this mean probability. Default: 0.5.")
]
KeepAllOption = Annotated[
    bool, typer.Option("--keep-all-components", help="Do not reduce any class to its largest component.")
]
PlaceOption = Annotated[
    bool | None,
    typer.Option(
        "--place/--no-place",
        help="Let it count where a class must lie: labelled scans are registered to each unlabelled one. Frames then "
        "show that place only, of thin slices from three sides, and later insertions are told what earlier ones found. "
        "Not in the paper. Default: yes with weights that were trained for it (the bundled ones), but for the preset "
        "paper; `expect` with and without it tells whether it helps.",
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
SeedOption = Annotated[int, typer.Option(min=0, help="All random draws follow from it.")]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, max=1024, help="Threads on the CPU. Default: OMP_NUM_THREADS, else all cores.")
]
DevicesOption = Annotated[
    list[str] | None, typer.Option("--device", help="auto (default), cpu, cuda:0 ...; several are used side by side.")
]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Training steps. Default: the preset's.")]
BatchOption = Annotated[int | None, typer.Option(min=1, help="Labelled, and as many unlabelled, slices a step.")]
JobFolderOption = Annotated[
    Path, typer.Option("--out", "-o", help="The job folder: new, or of the same job to resume it.")
]
ReportOption = Annotated[bool, typer.Option(help="Write tables and pictures.")]
SceneOption = Annotated[bool, typer.Option(help="Write an MRML scene for 3D Slicer.")]
ResampleOption = Annotated[
    bool, typer.Option("--resample-labels", help="Put labels of another geometry onto their image's grid.")
]
SchedulerOption = Annotated[
    str,
    typer.Option(
        help="Where to compute: local, dask://HOST:PORT, tls://HOST:PORT or slurm:CONFIG.json (docs/cluster.md)."
    ),
]
CpuIfNeededOption = Annotated[
    bool, typer.Option("--cpu-if-needed", help="Let the CPU take over if the GPU's memory does not suffice at all.")
]


def tffs_options(
    preset: Preset | None,
    insertions: int | None,
    precision: Precision | None,
    threshold: float | None,
    keep_all_components: bool,
    place: bool | None,
) -> "TffsOptions":
    """Options of the method from those of the command line; what is not given comes from the preset."""
    from SSLSegLib.tffs.options import TffsOptions

    given = {
        "preset": preset and preset.value,
        "insertions": insertions,
        "precision": precision and precision.value,
        "threshold": threshold,
        "largest_component": False if keep_all_components else None,
        "place": place,
    }
    return TffsOptions.model_validate({name: value for name, value in given.items() if value is not None})


def load_checked_cohort(
    path: Path, *, resample_labels: bool = False, output: Path | None = None, labelled: int = 1, unlabelled: int = 1
) -> "Cohort":
    """Load a cohort and refuse it before any work starts if something is wrong with it.

    Raises:
        SSLSegError: Naming the case and the way out.
    """
    from SSLSegLib.cases.cohort import Cohort
    from SSLSegLib.cases.preflight import check_cohort, raise_on_errors

    cohort = Cohort.load(path)
    if resample_labels:
        cohort = cohort.model_copy(update={"resample_labels": True})
    cohort.require(labelled=labelled, unlabelled=unlabelled)
    with console.status("Checking the cases"):
        findings = check_cohort(cohort, output=output)
    raise_on_errors(findings)
    for finding in findings:
        console.print(f"Note: {finding}", style="yellow", highlight=False, markup=False)
    return cohort


def say(text: str, style: str | None = None) -> None:
    """Print text as it is and on one line, so that paths and commands in it can be copied."""
    console.print(text, style=style, soft_wrap=True, highlight=False, markup=False)


def print_scores(scores: Sequence["CaseScores"], title: str) -> None:
    """A table of Dice, IoU and HD95 per case and class, and their means."""
    from SSLSegLib.evaluation.scores import summarise

    columns = {"Dice": "dice", "IoU": "iou", "HD95 mm": "hd95_pooled_mm"}
    table = Table(title=title)
    for name in ("case", "class", *columns):
        table.add_column(name, justify="left" if name in ("case", "class") else "right")
    for case in scores:
        for each in case.classes:
            row = [_number(getattr(each, metric), metric) for metric in columns.values()]
            table.add_row(case.case_id, each.class_name, *row)
    summaries = [each for each in summarise(scores) if each.metric in columns.values()]
    table.add_section()
    for class_name in dict.fromkeys(each.class_name for each in summaries):
        by_metric = {each.metric: each for each in summaries if each.class_name == class_name}
        row = [_with_spread(by_metric[metric].mean, by_metric[metric].sd, metric) for metric in columns.values()]
        table.add_row("mean ± sd", class_name, *row, style="bold")
    console.print(table)


def _number(value: float, metric: str) -> str:
    if value != value:
        return "–"
    return f"{value:.1f}" if metric.endswith("mm") else f"{value:.3f}"


def _with_spread(mean: float, deviation: float, metric: str) -> str:
    return _number(mean, metric) + (f" ± {_number(deviation, metric)}" if deviation == deviation else "")


logging.getLogger("SSLSegLib").addHandler(logging.NullHandler())
