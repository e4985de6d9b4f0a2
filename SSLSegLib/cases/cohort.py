"""A cohort: which cases there are, what each may be used for, and which classes are segmented in which images."""

import difflib
import os
from collections.abc import Collection
from pathlib import Path, PurePosixPath
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from SSLSegLib.cases.case import Case, Role, Window, is_absolute, is_safe_id
from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.errors import CohortError
from SSLSegLib.files import read_json, write_json

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["SCHEMA_VERSION", "Case", "Cohort", "Role", "Window", "is_safe_id"]

SCHEMA_VERSION = 1


class Cohort(BaseModel):
    """The input of every job, as ``cohort.json`` has it.

    Args:
        schema_version: Version of the file format.
        name: For titles of reports.
        modality: DICOM modality, "MR" and "CT" being treated specially (intensities).
        window: The CT window; needed for CT.
        classes: What is segmented, at least one class.
        cases: All cases, ids unique also where case is ignored.
        resample_labels: Put labels of another geometry onto the image's grid (nearest neighbour) instead of refusing.

    Example:
        >>> cohort = Cohort.load("cohort.json")                                     # doctest: +SKIP
        >>> [case.id for case in cohort.labelled]                                   # doctest: +SKIP
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str = Field(default="cohort", min_length=1, max_length=128)
    modality: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9]{0,15}$")] = "MR"
    window: Window | None = None
    classes: tuple[SegmentClass, ...] = Field(min_length=1)
    cases: tuple[Case, ...] = ()
    resample_labels: bool = False

    _folder: Path = PrivateAttr(default_factory=Path)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        _refuse_duplicates("case id", [case.id for case in self.cases])
        _refuse_duplicates("class name", [segment.name for segment in self.classes])
        _refuse_duplicates("class value", [str(segment.value) for segment in self.classes])
        if self.modality == "CT" and self.window is None:
            raise ValueError("a CT cohort needs a window, for example {'level': 40, 'width': 400} for soft tissue")
        return self

    @property
    def folder(self) -> Path:
        """What relative paths are relative to."""
        return self._folder

    @property
    def labelled(self) -> tuple[Case, ...]:
        """Cases with a label that the method may see."""
        return tuple(case for case in self.cases if case.role == "labelled")

    @property
    def unlabelled(self) -> tuple[Case, ...]:
        """Cases to be segmented, and learnt from without labels."""
        return tuple(case for case in self.cases if case.role == "unlabelled")

    @property
    def test(self) -> tuple[Case, ...]:
        """Cases that only final models are run on."""
        return tuple(case for case in self.cases if case.role == "test")

    def case(self, case_id: str) -> Case:
        """The case of that id.

        Raises:
            CohortError: Where there is none.
        """
        for case in self.cases:
            if case.id == case_id:
                return case
        raise CohortError(
            f"There is no case '{case_id}' in cohort '{self.name}'.",
            remedy=f"Use one of: {shorten(', '.join(case.id for case in self.cases), 200)}.",
        )

    def class_values(self) -> tuple[int, ...]:
        """Label values in the order of the classes."""
        return tuple(segment.value for segment in self.classes)

    def resolve(self, path: str) -> Path:
        """A path of this cohort as one that can be opened."""
        return Path(path) if is_absolute(path) else self._folder / PurePosixPath(path.replace("\\", "/"))

    def image_paths(self, case: Case) -> list[Path]:
        """Where the channels of a case lie."""
        return [self.resolve(path) for path in case.images]

    def label_path(self, case: Case, which: Literal["label", "reference"] = "label") -> Path | None:
        """Where the label or the reference of a case lies, None where it has none."""
        path = case.label if which == "label" else case.reference
        return None if path is None else self.resolve(path)

    def require(self, *, labelled: int = 1, unlabelled: int = 1) -> None:
        """Refuse a cohort with too few cases for the work at hand.

        Raises:
            CohortError: Naming what is missing.
        """
        for role, needed, there in (
            ("labelled", labelled, len(self.labelled)),
            ("unlabelled", unlabelled, len(self.unlabelled)),
        ):
            if there < needed:
                found = f"no {role} case" if there == 0 else f"{there} {role} case{'s' * (there > 1)}"
                raise CohortError(
                    f"Cohort '{self.name}' has {found}; this needs at least {needed}.",
                    remedy=f'Give a case "role": "{role}" in cohort.json'
                    + (" and name its label file." if role == "labelled" else "."),
                )

    def with_roles(self, *, labelled: Collection[str], test: Collection[str] = ()) -> Self:
        """The same cases with other roles: those of the given ids labelled or for testing, all others unlabelled.

        Labels of cases that are not to be seen by the method become references, which only score: how data that is
        labelled throughout is used for an experiment.

        Raises:
            CohortError: Where an id is unknown or given twice, or a case that is to be labelled has no label.
        """
        for case_id in (*labelled, *test):
            self.case(case_id)
        if both := set(labelled) & set(test):
            raise CohortError(f"Case '{min(both)}' cannot be both labelled and a test case.")
        cases = []
        for case in self.cases:
            known = case.label or case.reference
            if case.id in labelled:
                if known is None:
                    raise CohortError(
                        f"Case '{case.id}' has no label file.", remedy="name one, or choose other labelled cases."
                    )
                changed: dict[str, Any] = {"role": "labelled", "label": known, "reference": None}
            else:
                role: Role = "test" if case.id in test else "unlabelled"
                changed = {"role": role, "label": None, "reference": known}
            cases.append(case.model_copy(update=changed))
        return self.model_copy(update={"cases": tuple(cases)})

    def at(self, folder: Path | str) -> Self:
        """The same cohort with its relative paths relative to ``folder``, and that folder kept absolute."""
        copy = self.model_copy()
        copy._folder = Path(os.path.abspath(folder))
        return copy

    def relative_to(self, folder: Path | str) -> Self:
        """The same files named from another folder: relative inside it, absolute elsewhere."""
        folder = Path(os.path.abspath(folder))

        def moved(path: str | None) -> str | None:
            if path is None:
                return None
            absolute = Path(os.path.abspath(self.resolve(path)))
            inside = absolute.is_relative_to(folder)
            return absolute.relative_to(folder).as_posix() if inside else str(absolute)

        cases = tuple(
            case.model_copy(
                update={
                    "images": tuple(moved(path) for path in case.images),
                    "label": moved(case.label),
                    "reference": moved(case.reference),
                }
            )
            for case in self.cases
        )
        return self.model_copy(update={"cases": cases}).at(folder)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, without what is unset."""
        return self.model_dump(mode="json", exclude_none=True)

    def save(self, path: Path | str) -> Self:
        """Write ``cohort.json``, paths relative to it; returns the cohort as it lies there."""
        path = Path(path)
        cohort = self.relative_to(path.parent)
        write_json(path, cohort.to_dict())
        return cohort

    @classmethod
    def from_dict(cls, content: Any, folder: Path | str, *, source: str = "The cohort") -> Self:
        """From parsed JSON, paths relative to ``folder``.

        Args:
            content: What was parsed.
            folder: What paths are relative to.
            source: How an error names it.

        Raises:
            CohortError: Where it is not a cohort of this version, saying which field is wrong.
        """
        if not isinstance(content, dict):
            raise CohortError("This is not a cohort: a JSON object is expected.", remedy=_WRITE_ONE)
        version = content.get("schema_version")
        if isinstance(version, int) and not isinstance(version, bool) and version > SCHEMA_VERSION:
            raise CohortError(
                f"The cohort file has schema version {version}; this SSLSeg reads up to version {SCHEMA_VERSION}.",
                remedy="update SSLSeg, or write the file anew with this version.",
            )
        if version is None:
            raise CohortError("The cohort file has no 'schema_version'.", remedy='add "schema_version": 1.')
        try:
            return cls.model_validate(content).at(folder)
        except ValidationError as error:
            raise CohortError(f"{source} is not valid: {_in_words(error, content)}.", remedy=_WRITE_ONE) from None

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read ``cohort.json``.

        Raises:
            CohortError: Where the file is missing, is no JSON, or is not a cohort of this version.
        """
        path = Path(path)
        if os.path.isdir(path):
            path = path / "cohort.json"
        try:
            content = read_json(path)
        except FileNotFoundError:
            raise CohortError(f"There is no cohort file {path}.", remedy=_WRITE_ONE) from None
        except (OSError, ValueError) as error:
            raise CohortError(f"{path} cannot be read as JSON: {error}.", remedy=_WRITE_ONE) from None
        return cls.from_dict(content, path.parent, source=str(path))


_WRITE_ONE = "correct the file, or write one with 'python -m SSLSegLib cohort init FOLDER'."


def _refuse_duplicates(what: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name.casefold() in seen:
            raise ValueError(f"{what} '{name}' appears twice")
        seen.add(name.casefold())


def _in_words(error: ValidationError, content: dict[str, Any]) -> str:
    said = []
    for one in error.errors()[:4]:
        where = ".".join(str(part) for part in one["loc"])
        problem = _plainly(one)
        said.append(f"{where}{_case_named(one['loc'], content)}: {problem}" if where else problem)
    more = error.error_count() - len(said)
    return "; ".join(said).replace("Value error, ", "") + (f"; and {more} more" if more else "")


def _plainly(error: "ErrorDetails") -> str:
    """What pydantic says, for people who write JSON and no Python."""
    if error["type"] == "missing":
        return "it is missing"
    if error["type"] == "tuple_type":
        return "a list is expected, in square brackets"
    if error["loc"] == ("modality",) and error["type"] == "string_pattern_mismatch":
        return "a modality is written as in DICOM, in capital letters, such as MR or CT"
    if error["type"] != "extra_forbidden":
        return error["msg"]
    *parents, name = error["loc"]
    model = {"cases": Case, "classes": SegmentClass, "window": Window}.get(str(parents[0]) if parents else "", Cohort)
    meant = difflib.get_close_matches(str(name), model.model_fields, n=1)
    return "there is no such field" + (f"; is '{meant[0]}' meant?" if meant else "")


def _case_named(location: tuple[int | str, ...], content: dict[str, Any]) -> str:
    """``cases.3`` tells a reader little; its id does."""
    try:
        if location[0] == "cases":
            return f" (case '{content['cases'][location[1]]['id']}')"
    except (KeyError, IndexError, TypeError):
        pass
    return ""
