"""Small versioned JSON files: read with a clear refusal when newer or damaged, written whole or not at all."""

import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from SSLSegLib.errors import JobError
from SSLSegLib.files import read_json, write_text

__all__ = ["SCHEMA_VERSION", "DamagedDocumentError", "first_problem", "read_document", "write_document"]

SCHEMA_VERSION = 1

_START_AGAIN = "Make a new job in another folder; results in this one stay as they are."

Document = TypeVar("Document", bound=BaseModel)


class DamagedDocumentError(JobError):
    """A file of a job holds something else than it should, whatever its version."""


def read_document(path: Path, model: type[Document], *, what: str, if_damaged: str = _START_AGAIN) -> Document:
    """Read a JSON file that carries ``schema_version`` as the given model.

    Args:
        path: The file.
        model: Its pydantic model.
        what: What the file is to a reader, for example ``"manifest"``.
        if_damaged: What to do then.

    Raises:
        DamagedDocumentError: When the file is damaged.
        JobError: When it is missing, unreadable, or written by a newer version.
    """
    path = Path(path)
    try:
        content = read_json(path)
    except FileNotFoundError as error:
        raise JobError(f"There is no {what} at {path}.", remedy="Check the path of the job folder.") from error
    except OSError as error:
        raise JobError(f"The {what} {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise DamagedDocumentError(f"The {what} {path} is damaged: {_in_words(error)}.", remedy=if_damaged) from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if type(version) is not int or version < 1:
        raise DamagedDocumentError(f"The {what} {path} is damaged: it has no schema version.", remedy=if_damaged)
    if version > SCHEMA_VERSION:
        raise JobError(
            f"The {what} {path} was written by a newer version of SSLSeg (schema {version}, here {SCHEMA_VERSION}).",
            remedy="Update SSLSeg.",
        )
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise DamagedDocumentError(
            f"The {what} {path} is damaged: {first_problem(error)}.", remedy=if_damaged
        ) from error


def write_document(path: Path, document: BaseModel) -> None:
    """Write a model as JSON atomically."""
    write_text(path, document.model_dump_json(indent=2) + "\n")


def _in_words(error: ValueError) -> str:
    return "it is not JSON" if isinstance(error, json.JSONDecodeError | UnicodeError) else str(error)


def first_problem(error: ValidationError) -> str:
    """The first thing a validation found, as ``field: what is wrong``."""
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {problem['msg']}" if where else problem["msg"]
