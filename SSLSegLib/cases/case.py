"""One subject of a cohort: its id, its files and what they may be used for."""

import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["Case", "Role", "Window", "is_absolute", "is_safe_id"]

Role = Literal["labelled", "unlabelled", "test"]

# Case ids become folder and file names on every system.
_ID = re.compile(r"^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?$")
_RESERVED = {"con", "prn", "aux", "nul"} | {f"{port}{number}" for port in ("com", "lpt") for number in range(10)}


def is_safe_id(text: str) -> bool:
    """Whether a case id can be a file name everywhere: 1-64 of ``A-Z a-z 0-9 . _ -``, no reserved name."""
    return bool(_ID.fullmatch(text)) and text.split(".")[0].lower() not in _RESERVED


def _check_path(text: str) -> str:
    if not text or "\x00" in text:
        raise ValueError("a path is empty or holds a null character")
    if is_absolute(text):
        return text
    depth = 0
    for part in PurePosixPath(text.replace("\\", "/")).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            raise ValueError(f"the relative path '{text}' leaves the cohort's folder; write it as an absolute path")
    return text


def is_absolute(text: str) -> bool:
    return PurePosixPath(text).is_absolute() or PureWindowsPath(text).is_absolute()


class Window(BaseModel):
    """A CT window in Hounsfield units."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    level: float = Field(allow_inf_nan=False)
    width: float = Field(gt=0, allow_inf_nan=False)


class Case(BaseModel):
    """One subject's images and what is known about them.

    Args:
        id: Its name, also of its result folder.
        role: What the method may do with it.
        images: One file (or DICOM series folder) a channel, or one file that holds all channels; relative to the
            cohort's folder, or absolute.
        label: The segmentation the method may learn from. Labelled cases have one, others none.
        reference: A segmentation that only ever scores results (unlabelled and test cases).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    role: Role
    images: tuple[str, ...] = Field(min_length=1, max_length=32)
    label: str | None = None
    reference: str | None = None

    @field_validator("id")
    @classmethod
    def _id_is_a_file_name(cls, text: str) -> str:
        if not is_safe_id(text):
            raise ValueError(
                f"'{text}' cannot name a case: use 1 to 64 letters, digits, '.', '_' or '-', starting with a letter "
                "or digit"
            )
        return text

    @field_validator("images", mode="before")
    @classmethod
    def _paths_as_text(cls, paths: Any) -> Any:
        return [_text(path) for path in paths] if isinstance(paths, list | tuple) else paths

    @field_validator("label", "reference", mode="before")
    @classmethod
    def _path_as_text(cls, path: Any) -> Any:
        return _text(path)

    @field_validator("images")
    @classmethod
    def _images_stay_inside(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_check_path(path) for path in paths)

    @field_validator("label", "reference")
    @classmethod
    def _labels_stay_inside(cls, path: str | None) -> str | None:
        return None if path is None else _check_path(path)

    @model_validator(mode="after")
    def _label_belongs_to_role(self) -> Self:
        if self.role == "labelled" and self.label is None:
            raise ValueError(f"case '{self.id}' is labelled but names no label file")
        if self.role != "labelled" and self.label is not None:
            raise ValueError(
                f"case '{self.id}' is {self.role} and has a label; a label that only scores is its 'reference'"
            )
        return self


def _text(path: Any) -> Any:
    return path.as_posix() if isinstance(path, Path) else path
