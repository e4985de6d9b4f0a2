"""``vessa train``: stage 1."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from SSLSegLib.commands.shared import BUNDLED, SeedOption, console, load_checked_cohort

if TYPE_CHECKING:
    from SSLSegLib.vessa.configuration import LanguageConfiguration
    from SSLSegLib.vessa.slices import LabelledSlices

__all__ = ["DinoOption", "Sam2Option", "train"]

Sam2Option = Annotated[str, typer.Option(help="SAM2 or MedSAM2 weights: name in the catalogue, or path of a file.")]
DinoOption = Annotated[
    Path | None, typer.Option(help="DINOv2 weights to find templates by. Default: features of the SAM2 that is used.")
]


class LanguageSize(StrEnum):
    """Language models."""

    none = "none"
    tiny = "tiny"
    two = "2B"
    four = "4B"
    eight = "8B"


def train(
    data: Annotated[
        list[Path], typer.Argument(help="cohort.json files or folders, or folders of BiomedParseData datasets.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the training; one that was begun is resumed.")],
    sam2: Sam2Option = BUNDLED,
    language: Annotated[
        LanguageSize,
        typer.Option(help="Size of Qwen3-VL; tiny: random, for trying out on a CPU; none: the ablation without VLM."),
    ] = LanguageSize.four,
    language_from: Annotated[
        Path | None, typer.Option(help="Folder with the language model's files, instead of the hub.")
    ] = None,
    without_memory: Annotated[
        bool, typer.Option("--without-memory", help="The ablation without SAM2's memory.")
    ] = False,
    dino: DinoOption = None,
    download: Annotated[bool, typer.Option("--download", help="Allow the language model to be downloaded.")] = False,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Datasets to leave out. Default: ACDC and AbdomenCT-1K.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Updates. Default: 10,000.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Pairs a step and device. Default: 2.")] = None,
    accumulate: Annotated[int | None, typer.Option(min=1, help="Steps an update. Default: 4.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0, help="Default: 4e-5.")] = None,
    bank_part: Annotated[
        float | None, typer.Option(min=0.001, max=0.9, help="Subjects for the template bank. Default: 0.05.")
    ] = None,
    validate_every: Annotated[int | None, typer.Option(min=1, help="Updates. Default: 500.")] = None,
    named: Annotated[
        bool, typer.Option("--named", help="Tell the language model each structure's name, and so when it is used.")
    ] = False,
    float32: Annotated[bool, typer.Option("--float32", help="No mixed precision.")] = False,
    cpu: Annotated[bool, typer.Option("--cpu", help="Stay on the CPU.")] = False,
    seed: SeedOption = 42,
) -> None:
    """Train VESSA (stage 1). On several GPUs: accelerate launch -m SSLSegLib vessa train ..."""
    from SSLSegLib.errors import CohortError
    from SSLSegLib.jobs.vessa import load_features
    from SSLSegLib.vessa.configuration import VessaConfiguration
    from SSLSegLib.vessa.data import EXCLUDED
    from SSLSegLib.vessa.model import build_vessa
    from SSLSegLib.vessa.options import TrainingOptions
    from SSLSegLib.vessa.pairs import prepare_data
    from SSLSegLib.vessa.train import StageOne
    from SSLSegLib.weights.loading import load_sam2

    given = {
        "steps": steps,
        "batch": batch,
        "accumulate": accumulate,
        "learning_rate": learning_rate,
        "bank_part": bank_part,
        "validate_every": validate_every,
        "precision": "float32" if float32 else None,
        "named": named,
    }
    if learning_rate == 0:
        raise CohortError(
            "At a learning rate of 0 nothing is learnt.", remedy="Leave --learning-rate out, or raise it."
        )
    spoken = _language(language, language_from)
    if spoken is None and without_memory:
        raise CohortError(
            "Without a language model and without memory nothing says what to segment.",
            remedy="Leave out --without-memory or --language none.",
        )
    options = TrainingOptions(seed=seed, **{name: value for name, value in given.items() if value is not None})
    loaded = load_sam2(sam2, "cpu")
    configuration = VessaConfiguration(sam2=loaded.configuration, language=spoken, memory=not without_memory)
    vessa = build_vessa(configuration, sam2=loaded.model, seed=seed, download=download)
    # A missing language model is better told before many slices are read.
    slices = _training_slices(data, tuple(exclude) if exclude is not None else EXCLUDED)
    features = load_features(None, sam2, dino, "cpu")
    with console.status("Indexing the template bank"):
        prepared = prepare_data(slices, features, options)
    trainer = StageOne(out, vessa, prepared, options, progress=_Lines(options.steps), cpu=cpu)
    best = trainer.run()
    if trainer.accelerator.is_main_process:
        console.print(f"Best validation Dice {best:.3f}. Model: {out / 'model'}", soft_wrap=True, highlight=False)


def _training_slices(data: list[Path], exclude: tuple[str, ...]) -> "LabelledSlices":
    from SSLSegLib.vessa.data import BiomedParseSlices, find_datasets
    from SSLSegLib.vessa.pairs import Joined
    from SSLSegLib.vessa.slices import CohortSlices

    sources: list[Any] = []
    for path in data:
        if path.suffix == ".json" or (path / "cohort.json").is_file():
            sources.append(CohortSlices(load_checked_cohort(path, labelled=3, unlabelled=0)))
        else:
            sources += [BiomedParseSlices(folder) for folder in find_datasets(path, exclude=exclude)]
    return Joined(sources)


def _language(size: LanguageSize, folder: Path | None) -> "LanguageConfiguration | None":
    from SSLSegLib.vessa.configuration import QWEN3_VL, LanguageConfiguration, tiny_language

    if folder is not None:
        return LanguageConfiguration(source=str(folder.absolute()))
    if size == LanguageSize.none:
        return None
    if size == LanguageSize.tiny:
        return tiny_language()
    return LanguageConfiguration(source=QWEN3_VL[size.value])


class _Lines:
    """A progress listener that prints now and then."""

    def __init__(self, steps: int) -> None:
        self.every, self.told = max(1, steps // 10), 0

    def __call__(self, event: str, **fields: Any) -> None:
        if event == "stage":
            console.print(fields["stage"], highlight=False)
        elif event == "metric" and (fields["step"] >= self.told + self.every or "validation_dice" in fields):
            self.told = fields["step"]
            numbers = {
                name: fields[name] for name in ("loss", "dice", "confident", "guide_agreement") if name in fields
            }
            numbers |= {"validation Dice": fields["validation_dice"]} if "validation_dice" in fields else {}
            shown = ", ".join(
                f"{name.replace('_', ' ')} {value:.3f}" for name, value in numbers.items() if value is not None
            )
            console.print(f"  step {fields['step']} of {fields['steps']}: {shown}", highlight=False)
        elif event == "warning":
            console.print(fields["message"], style="yellow", highlight=False)
