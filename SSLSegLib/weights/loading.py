"""SAM2 with its weights: by name from the catalogue or from any file, strict on names and shapes."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import WeightsError
from ..files import sha256_of
from .catalogue import CatalogueEntry, entry_named, load_catalogue
from .configuration import Sam2Configuration
from .device import DeviceChoice, resolve_device
from .reading import read_state_dict, recognised_as
from .sam2_model import build_sam2, place_sam2, resolved_configuration
from .sidecar import read_sidecar
from .store import find_weights, is_catalogued, read_pins

__all__ = ["LoadedSam2", "load_sam2"]


@dataclass(frozen=True)
class LoadedSam2:
    """A SAM2 ready to run.

    Args:
        model: ``SAM2Base`` in eval mode, float32, without gradients, on ``device``.
        name: Name in the catalogue, or the file's name without its ending.
        sha256: Of the file as read; goes into every result's provenance.
        image_size: Side of the square frames in pixels.
        configuration: How the model was built.
        configuration_from: Where that came from: ``catalogue``, ``given``, ``beside the file``, or ``guessed as NAME``
            (shapes alone cannot tell the frame size).
        device: Where the model lies.
        device_outcome: Why there, in words.
    """

    model: torch.nn.Module
    name: str
    sha256: str
    image_size: int
    configuration: Sam2Configuration
    configuration_from: str
    device: torch.device
    device_outcome: str


def load_sam2(
    name_or_path: str | Path,
    device: str | torch.device = "cpu",
    *,
    folder: Path | str | None = None,
    configuration: Sam2Configuration | None = None,
) -> LoadedSam2:
    """Load a SAM2 or MedSAM2.

    Args:
        name_or_path: Name in the catalogue (its SHA-256 is checked), or a ``.pt`` file in the official format or a
            ``.safetensors`` file (whatever precision it stores is brought to float32).
        device: See :func:`~SSLSegLib.weights.device.resolve_device`.
        folder: Searched first for files of the catalogue.
        configuration: Of a file that the catalogue does not know. Without it, in this order: the JSON file beside
            it, the catalogue entry of the same SHA-256 or the same file name, the first entry of the same architecture.

    Raises:
        WeightsError: Missing, damaged, other than the catalogue says, of another model or another size.
        DeviceError: The device cannot be used.

    Example:
        >>> load_sam2("sslseg-small").model.training
        False
    """
    catalogue = load_catalogue()
    choice = resolve_device(device)
    if is_catalogued(name_or_path) or not Path(name_or_path).is_file():
        entry = _sam2_entry(str(name_or_path), catalogue)
        path = find_weights(entry.name, folder)
        digest = _checked_digest(entry, path)
        state = read_state_dict(path)
        chosen, origin = (configuration, "given") if configuration else (entry.configuration, "catalogue")
        name = entry.name
    else:
        path = Path(name_or_path)
        digest, state, name = sha256_of(path), read_state_dict(path), path.stem
        chosen, origin = _configuration_of(path, digest, state, configuration, catalogue)
    if chosen is None:
        raise WeightsError(
            f"Nothing says how the model of {path} is built.", remedy="Restore the JSON file that belongs beside it."
        )
    if origin == "beside the file":
        _refuse_other_architecture(path, state, chosen)
    model = _filled(build_sam2(chosen), state, path, chosen, catalogue)
    return _loaded(model, name, digest, chosen, origin, choice)


def _sam2_entry(name: str, catalogue: Mapping[str, CatalogueEntry]) -> CatalogueEntry:
    if ("/" in name or "\\" in name) and name not in catalogue:
        raise WeightsError(f"There is no file {name}.", remedy="Check the path, or use a name from `weights list`.")
    entry = entry_named(name, dict(catalogue))
    if entry.kind != "sam2":
        names = ", ".join(other.name for other in catalogue.values() if other.kind == "sam2")
        raise WeightsError(f"{entry.name} is a {entry.kind} model, not a SAM2.", remedy=f"Use one of: {names}.")
    return entry


def _checked_digest(entry: CatalogueEntry, path: Path) -> str:
    digest = sha256_of(path)
    expected = entry.files[0].sha256 or read_pins(path.parent).get(path.name, {}).get("sha256")
    if expected is not None and digest != expected:
        raise WeightsError(
            f"{path} is not the file {entry.name}: its SHA-256 is {digest}, expected {expected}.",
            remedy=(
                f"Delete it and run `python -m SSLSegLib weights download {entry.name}`; "
                "to use your own weights, give them another file name and pass its path."
            ),
        )
    return digest


def _configuration_of(
    path: Path,
    digest: str,
    state: Mapping[str, torch.Tensor],
    given: Sam2Configuration | None,
    catalogue: Mapping[str, CatalogueEntry],
) -> tuple[Sam2Configuration, str]:
    """The configuration of a file that was named by its path, and where it came from."""
    if given is not None:
        return given, "given"
    if path.suffix == ".safetensors" and (sidecar := read_sidecar(path)) is not None:
        if sidecar.sha256 != digest:
            raise WeightsError(
                f"{path} is not the file that the JSON beside it describes (SHA-256 {digest}, not {sidecar.sha256}).",
                remedy="Restore both files from the same training, or remove the JSON file.",
            )
        return sidecar.configuration, "beside the file"
    fitting = _entries_of_architecture(state, catalogue)
    for entry in fitting:
        if digest == entry.files[0].sha256 or path.name == entry.files[0].name:
            return entry.configuration, "catalogue"
    if not fitting:
        raise _not_a_known_sam2(path, state)
    return fitting[0].configuration, f"guessed as {fitting[0].name}"


def _not_a_known_sam2(path: Path, state: Mapping[str, torch.Tensor]) -> WeightsError:
    if recognised := recognised_as(state):
        return WeightsError(f"{path} holds the weights of {recognised}.", remedy="Use SAM2 or MedSAM2 weights here.")
    if _architecture_of(state) is None:
        return WeightsError(
            f"{path} holds no SAM2: its tensors have other names.", remedy="Use SAM2 or MedSAM2 weights."
        )
    return WeightsError(
        f"{path} is a SAM2 of a size that the catalogue does not hold.",
        remedy="Pass its configuration, or put the JSON file that was written with it beside it.",
    )


# --- architecture from shapes ------------------------------------------------------------------------------------


def _architecture_of(state: Mapping[str, torch.Tensor]) -> tuple[int, ...] | None:
    """Widths and depths that tell the SAM2 sizes apart, from shapes; ``None`` if it is no SAM2."""
    try:
        return (
            state["image_encoder.trunk.patch_embed.proj.weight"].shape[0],
            _count(state, "image_encoder.trunk.blocks."),
            state["image_encoder.neck.convs.0.conv.weight"].shape[0],
            _count(state, "memory_attention.layers."),
            state["memory_encoder.out_proj.weight"].shape[0],
        )
    except (KeyError, IndexError):
        return None


def _count(state: Mapping[str, torch.Tensor], prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})


def _architecture_expected(configuration: Sam2Configuration) -> tuple[int, ...]:
    from sam2.modeling.backbones.hieradet import Hiera

    model = resolved_configuration(configuration)
    trunk = model.image_encoder.trunk
    stages = trunk.get("stages", inspect.signature(Hiera).parameters["stages"].default)  # base_plus leaves it out
    return (
        trunk.embed_dim,
        sum(stages),
        model.image_encoder.neck.d_model,
        model.memory_attention.num_layers,
        model.memory_encoder.out_dim,
    )


def _refuse_other_architecture(path: Path, state: Mapping[str, torch.Tensor], configuration: Sam2Configuration) -> None:
    """Compare what came with a file with the file before a model of that size is built."""
    try:
        fits = _architecture_expected(configuration) == _architecture_of(state)
    except WeightsError:
        raise
    except Exception:  # overrides that put something else where the stock configuration has a number
        fits = False
    if not fits:
        raise WeightsError(
            f"The JSON file beside {path} describes another model than the file holds.",
            remedy="Restore both files from the same training, or remove the JSON file.",
        )


def _entries_of_architecture(
    state: Mapping[str, torch.Tensor], catalogue: Mapping[str, CatalogueEntry]
) -> list[CatalogueEntry]:
    found = _architecture_of(state)
    return [
        entry
        for entry in catalogue.values()
        if found is not None
        and entry.configuration is not None
        and _architecture_expected(entry.configuration) == found
    ]


# --- filling the model -------------------------------------------------------------------------------------------


def _filled(
    model: torch.nn.Module,
    state: Mapping[str, torch.Tensor],
    path: Path,
    configuration: Sam2Configuration,
    catalogue: Mapping[str, CatalogueEntry],
) -> torch.nn.Module:
    """Copy the tensors into the model after comparing names and shapes and refusing NaN and infinity."""
    expected = model.state_dict()
    missing, surplus = expected.keys() - state.keys(), state.keys() - expected.keys()
    other_shape = [name for name in expected.keys() & state.keys() if expected[name].shape != state[name].shape]
    if missing or surplus or other_shape:
        raise _unfitting(path, state, configuration, catalogue, sorted(missing), sorted(surplus), sorted(other_shape))
    broken = [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise WeightsError(
            f"{path} holds NaN or infinite values ({len(broken)} tensors, first {broken[0]}).",
            remedy="The training that wrote it diverged, or the file is damaged; use another checkpoint.",
        )
    model.load_state_dict(state, strict=True)
    return model.requires_grad_(False).eval()


def _unfitting(
    path: Path,
    state: Mapping[str, torch.Tensor],
    configuration: Sam2Configuration,
    catalogue: Mapping[str, CatalogueEntry],
    missing: list[str],
    surplus: list[str],
    other_shape: list[str],
) -> WeightsError:
    if (recognised := recognised_as(state)) and missing:
        return WeightsError(f"{path} holds the weights of {recognised}.", remedy="Use SAM2 or MedSAM2 weights here.")
    differences = [
        f"{len(names)} {what} (first {names[0]})"
        for names, what in ((missing, "missing"), (surplus, "not expected"), (other_shape, "of another shape"))
        if names
    ]
    fitting = [entry.name for entry in _entries_of_architecture(state, catalogue)]
    return WeightsError(
        f"{path} does not fit {configuration.base} at {configuration.image_size} px: tensors {', '.join(differences)}.",
        remedy=f"Its architecture is that of {', '.join(fitting)}." if fitting else "Use SAM2 or MedSAM2 weights.",
    )


def _loaded(
    model: torch.nn.Module,
    name: str,
    digest: str,
    configuration: Sam2Configuration,
    origin: str,
    choice: DeviceChoice,
) -> LoadedSam2:
    return LoadedSam2(
        model=place_sam2(model, choice.device),
        name=name,
        sha256=digest,
        image_size=configuration.image_size,
        configuration=configuration,
        configuration_from=origin,
        device=choice.device,
        device_outcome=choice.outcome,
    )
