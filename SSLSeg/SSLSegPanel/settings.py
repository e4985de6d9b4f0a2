# ruff: noqa: N815 - the names are those of Slicer and Qt
"""What can be chosen for a run, with its defaults: one table for the panel, the console and saved scenes."""

import enum
from typing import Annotated

from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Decimals, SingleStep, WithinRange, parameterNodeWrapper

__all__ = ["Modality", "PanelParameters", "Place", "Preset"]


class Preset(enum.Enum):
    """How much is computed. The names are stored in scenes: never rename them."""

    FAST = "fast"
    BALANCED = "balanced"
    PAPER = "paper"

    def label(self):
        return {
            Preset.FAST: _("Fast: 2 insertions"),
            Preset.BALANCED: _("Balanced: 5 insertions"),
            Preset.PAPER: _("Paper: as published"),
        }[self]


class Modality(enum.Enum):
    """What the images are: how grey levels are scaled."""

    MR = "MR"
    CT = "CT"

    def label(self):
        return {Modality.MR: _("MR: by percentiles"), Modality.CT: _("CT: by a fixed window")}[self]


class Place(enum.Enum):
    """Whether it counts where a structure lies in the labelled scans."""

    AUTO = "auto"
    YES = "yes"
    NO = "no"

    def label(self):
        return {
            Place.AUTO: _("Automatic: by the weights"),
            Place.YES: _("Counts"),
            Place.NO: _("Does not count"),
        }[self]

    @property
    def asked(self):
        """What ``TffsOptions.place`` is given; for AUTO nothing, so that the preset decides."""
        return {Place.AUTO: {}, Place.YES: {"place": True}, Place.NO: {"place": False}}[self]


@parameterNodeWrapper
class PanelParameters:
    """Everything of the panel that belongs to the scene; choices of the machine (device, folders) do not."""

    method: str = "tffs"
    preset: Preset = Preset.BALANCED
    modality: Modality = Modality.MR
    windowLevel: Annotated[float, WithinRange(-2000, 4000), Decimals(0)] = 40
    windowWidth: Annotated[float, WithinRange(1, 8000), Decimals(0)] = 400
    threshold: Annotated[float, WithinRange(0.05, 0.95), Decimals(2), SingleStep(0.05)] = 0.5
    place: Place = Place.AUTO
    seed: Annotated[int, WithinRange(0, 1_000_000)] = 42
    weights: str = "sslseg-small"
    ignoredSegments: dict[str, bool]  # name -> True for segments that are no class
    pairedSegments: dict[str, bool]  # name -> True for structures of several pieces
    writeReport: bool = True
    jobFolder: str = ""
    trainingFolder: str = ""
    overlayOpacity: Annotated[float, WithinRange(0, 1), Decimals(2), SingleStep(0.05)] = 0.4
