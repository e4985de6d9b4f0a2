"""``train-checkpoint``: train the bundled small SAM2 on generated anatomy."""

import math
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from SSLSegLib.errors import SSLSegError

__all__ = ["train_checkpoint"]

NO_BEGINNER = {"easing": 1, "small_until": 0.0, "chains_from": 0.15}
"""Options of a training that goes on from another: targets known by brightness and small frames are for beginners."""


def train_checkpoint(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the training; one that was begun is resumed.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps of four subject pairs with two targets each.")] = 20000,
    minutes: Annotated[float, typer.Option(min=0.1, help="End after this much time, however many steps.")] = math.inf,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Of weights, data and noise.")] = 1,
    image_size: Annotated[int, typer.Option(help="Side of a frame in pixels, a multiple of 32.")] = 160,
    batch: Annotated[int, typer.Option(min=1, help="Subject pairs in a step.")] = 4,
    workers: Annotated[int, typer.Option(min=0, help="Processes that generate data; a GPU needs 12 and more.")] = 1,
    validation: Annotated[int, typer.Option(min=1, help="Batches of the fixed validation set.")] = 8,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads on the CPU. Default: OMP_NUM_THREADS.")] = None,
    bfloat16: Annotated[
        bool | None, typer.Option(help="Compute in bfloat16. Default: on a GPU; gains on processors with AVX512-BF16.")
    ] = None,
    start_from: Annotated[
        Path | None, typer.Option(help="Start from these weights: another training's folder, or a .safetensors file.")
    ] = None,
    mean_with: Annotated[
        list[Path] | None,
        typer.Option(help="Write the mean of the weights with those of this training's folder. Can be repeated."),
    ] = None,
    bundle: Annotated[bool, typer.Option("--bundle", help="Make the result the checkpoint that ships.")] = False,
) -> None:
    """Train sslseg-small, the bundled SAM2, on generated anatomy (seeded; CPU or CUDA; ends with weights in OUT)."""
    _refuse_other_files(out)
    if image_size < 32 or image_size % 32:
        raise SSLSegError(f"{image_size} pixels are no multiple of 32.", remedy="Give another --image-size.")

    import torch

    from ..weights.device import resolve_device
    from .export import export_checkpoint
    from .training import Trainer, TrainingOptions

    console = Console()
    if threads is not None:
        torch.set_num_threads(threads)
    choice = resolve_device(device)
    console.print(choice.outcome)
    options = TrainingOptions(
        seed=seed,
        image_size=image_size,
        batch=batch,
        steps=steps,
        minutes=minutes,
        workers=workers,
        validation=validation,
        device=str(choice.device),
        bfloat16=bfloat16,
        **({} if start_from is None else NO_BEGINNER),
    )
    with _Bar(console) as bar:
        if start_from is not None and start_from.suffix != ".safetensors":
            start_from = start_from / "state.pt"
        Trainer(out, options, progress=bar, start_from=start_from).run()
    path = export_checkpoint(out, mean_with=mean_with or (), bundle=bundle)
    console.print(f"[green]Done:[/] {path}", soft_wrap=True)
    console.print(f"Curves: {out / 'curve.csv'}, {out / 'validation.csv'}", soft_wrap=True)


def _refuse_other_files(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and not (out / "options.json").is_file():
        raise SSLSegError(
            f"{out} holds other files and no training.", remedy="Name a new folder with --out. Nothing was changed."
        )


class _Bar(Progress):
    """A rich progress bar that is a ``progress.Progress`` listener."""

    def __init__(self, console: Console) -> None:
        columns = BarColumn(), TextColumn("{task.percentage:.1f} %"), TimeElapsedColumn(), TimeRemainingColumn()
        super().__init__(TextColumn("{task.description}"), *columns, console=console)
        self._task = self.add_task("training", total=100)

    def __call__(self, event: str, **fields: Any) -> None:
        if event == "progress":
            self.update(self._task, completed=fields["done"])
        elif event == "metric" and fields["stage"] == "curve":
            said = f"step {fields['step']}  loss {fields['loss']:.3f}  Dice {fields['dice']:.3f} ({fields['phase']})"
            self.update(self._task, description=said)
        elif event == "metric":
            dice, volume = fields["dice"], fields["volume"]
            self.console.print(f"step {fields['step']}: unseen subjects, Dice {dice:.3f}, volume ratio {volume:.2f}")
