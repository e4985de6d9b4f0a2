"""What is segmented: classes with a value, a name, a colour and DICOM codes."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["Code", "SegmentClass", "Terminology", "default_color"]

Byte = Annotated[int, Field(ge=0, le=255)]

# Distinct at a glance and on grey; the first eight classes of a cohort without colours get them in turn.
_COLORS = (
    (221, 130, 101),
    (128, 174, 128),
    (111, 184, 210),
    (241, 214, 145),
    (177, 122, 101),
    (216, 101, 79),
    (145, 60, 166),
    (68, 131, 98),
)


class Code(BaseModel):
    """A coded term as DICOM has it: ``SCT 10200004 Liver``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scheme: str = Field(min_length=1, max_length=16)
    value: str = Field(min_length=1, max_length=64)
    meaning: str = Field(min_length=1, max_length=64)

    @field_validator("scheme", "value", "meaning")
    @classmethod
    def _no_separators(cls, text: str) -> str:
        if any(character in text for character in "~^|\n\r"):
            raise ValueError("the characters ~ ^ | and line breaks separate codes and cannot stand inside one")
        return text


class Terminology(BaseModel):
    """What a segment is, in the codes that DICOM SEG export asks for.

    Example:
        >>> Terminology(type=Code(scheme="SCT", value="10200004", meaning="Liver")).serialized().split("~")[2]
        'SCT^10200004^Liver'
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    category: Code = Code(scheme="SCT", value="123037004", meaning="Anatomical Structure")
    type: Code
    modifier: Code | None = None
    region: Code | None = None
    region_modifier: Code | None = None

    def serialized(self) -> str:
        """The terminology entry as 3D Slicer keeps it in a segment's ``TerminologyEntry`` tag."""
        return "~".join(
            [
                "Segmentation category and type - 3D Slicer General Anatomy list",
                _serialized(self.category),
                _serialized(self.type),
                _serialized(self.modifier),
                "Anatomic codes - DICOM master list",
                _serialized(self.region),
                _serialized(self.region_modifier),
            ]
        )


class SegmentClass(BaseModel):
    """One class of a cohort.

    Args:
        value: The voxel value in label files, 1 to 255.
        name: As it appears in tables and as the segment's name.
        color: Red, green, blue, each 0 to 255. Left out, the value picks one.
        terminology: DICOM codes; without them a segment is exported as an unspecified tissue.
        largest_component: Whether the structure is one connected piece, so that smaller pieces of a prediction are
            errors. False for paired organs.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: int = Field(ge=1, le=255)
    name: str = Field(min_length=1, max_length=64, pattern=r"^[^\s\x00-\x1f](?:[^\x00-\x1f]*[^\s\x00-\x1f])?$")
    color: tuple[Byte, Byte, Byte]
    terminology: Terminology | None = None
    largest_component: bool = True

    @model_validator(mode="before")
    @classmethod
    def _with_color(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and fields.get("color") is None and isinstance(fields.get("value"), int):
            return {**fields, "color": default_color(fields["value"])}
        return fields

    @property
    def color_unit(self) -> tuple[float, float, float]:
        """The colour as three numbers from 0 to 1."""
        red, green, blue = self.color
        return red / 255, green / 255, blue / 255


def default_color(value: int) -> tuple[int, int, int]:
    """The colour of a class that names none."""
    return _COLORS[(value - 1) % len(_COLORS)]


def _serialized(code: Code | None) -> str:
    return "^^" if code is None else f"{code.scheme}^{code.value}^{code.meaning}"
