"""How the segmentation network is built. Imports no torch."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["NETWORKS", "NetworkConfiguration", "NetworkName"]

NetworkName = Literal["tiny", "small", "base", "large"]


class NetworkConfiguration(BaseModel):
    """A DINOv2 encoder with a DPT decoder.

    Args:
        hidden: Width of the encoder.
        layers: Its blocks.
        heads: Its attention heads.
        taps: The four blocks whose output (normalised, patch tokens only) the decoder sees, counted from 0.
        features: Width of the decoder.
        channels: Width of the four levels before they are brought to ``features``.
        patch: Pixels along the side of a patch. Image sides are multiples of it.
        grid: Patches along the side of the image that the position embedding was made for (518 / 14 = 37).
        layer_scale: First value of the encoder's layer scale.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: int = Field(ge=8)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    taps: tuple[int, int, int, int]
    features: int = Field(ge=4)
    channels: tuple[int, int, int, int]
    patch: int = Field(default=14, ge=4, le=32)
    grid: int = Field(default=37, ge=2)
    layer_scale: float = 1.0

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.hidden}")
        if list(self.taps) != sorted(set(self.taps)) or not 0 <= self.taps[0] <= self.taps[-1] < self.layers:
            raise ValueError(f"the taps {self.taps} are not four rising block numbers below {self.layers}")
        return self


NETWORKS: dict[str, NetworkConfiguration] = {
    # For CPUs, trained from scratch: smaller patches, since the images are small as well.
    "tiny": NetworkConfiguration(
        hidden=96, layers=4, heads=3, taps=(0, 1, 2, 3), features=32, channels=(24, 48, 64, 96), patch=8, grid=12
    ),
    # The official three.
    "small": NetworkConfiguration(
        hidden=384, layers=12, heads=6, taps=(2, 5, 8, 11), features=64, channels=(48, 96, 192, 384)
    ),
    "base": NetworkConfiguration(
        hidden=768, layers=12, heads=12, taps=(2, 5, 8, 11), features=128, channels=(96, 192, 384, 768)
    ),
    "large": NetworkConfiguration(
        hidden=1024, layers=24, heads=16, taps=(4, 11, 17, 23), features=256, channels=(256, 512, 1024, 1024)
    ),
}
