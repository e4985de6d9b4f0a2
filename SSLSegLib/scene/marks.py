"""What tells a pseudo-label from an expert's label, wherever the node or file goes (decision 2)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

__all__ = ["PREFIX", "PseudoLabelMarks", "is_pseudo_label"]

PREFIX = "SSLSeg."


@dataclass(frozen=True, kw_only=True)
class PseudoLabelMarks:
    """How a pseudo-label came about.

    Args:
        case_id: The case it labels.
        method: Such as ``TFFS-MedSAM2``.
        weights_sha256: Hex digest of the network's weights; empty for a method without.
        seed: The run's seed; None for a method that draws nothing.
        labelled_cases: Ids of the expert-labelled cases it was made from.
        created: Date and time, ISO 8601.
        version: Version of this software.
    """

    case_id: str
    method: str
    weights_sha256: str
    seed: int | None
    labelled_cases: tuple[str, ...]
    created: str
    version: str

    def attributes(self) -> dict[str, str]:
        """As node attributes, ``SSLSeg.PseudoLabel`` = 1 first."""
        return {
            f"{PREFIX}PseudoLabel": "1",
            f"{PREFIX}CaseID": self.case_id,
            f"{PREFIX}Method": self.method,
            f"{PREFIX}WeightsSHA256": self.weights_sha256,
            f"{PREFIX}Seed": "" if self.seed is None else str(self.seed),
            f"{PREFIX}LabelledCases": json.dumps(list(self.labelled_cases), ensure_ascii=False),
            f"{PREFIX}Created": self.created,
            f"{PREFIX}Version": self.version,
        }

    @classmethod
    def from_provenance(cls, case_id: str, provenance: Mapping[str, Any]) -> Self:
        """From a result's provenance (:func:`SSLSegLib.pseudolabels.label.make_provenance`)."""
        return cls(
            case_id=case_id,
            method=provenance["method"],
            weights_sha256=provenance["weights"]["sha256"] or "",
            seed=provenance["seed"],
            labelled_cases=tuple(provenance["labelled"]),
            created=provenance["date"],
            version=provenance["software"]["SSLSeg"],
        )

    @classmethod
    def from_attributes(cls, attributes: dict[str, str]) -> Self | None:
        """Read back what :meth:`attributes` wrote; None where the marks are not there or not whole."""
        if attributes.get(f"{PREFIX}PseudoLabel") != "1":
            return None
        try:
            return cls(
                case_id=attributes[f"{PREFIX}CaseID"],
                method=attributes[f"{PREFIX}Method"],
                weights_sha256=attributes[f"{PREFIX}WeightsSHA256"],
                seed=int(attributes[f"{PREFIX}Seed"]) if attributes[f"{PREFIX}Seed"] else None,
                labelled_cases=tuple(json.loads(attributes[f"{PREFIX}LabelledCases"])),
                created=attributes[f"{PREFIX}Created"],
                version=attributes[f"{PREFIX}Version"],
            )
        except (KeyError, ValueError):
            return None

    @classmethod
    def of_node(cls, node: Any) -> Self | None:
        """The marks of an MRML node, or None."""
        names = [name for name in node.GetAttributeNames() if name.startswith(PREFIX)]
        return cls.from_attributes({name: node.GetAttribute(name) for name in names})

    def mark_node(self, node: Any) -> None:
        """Put the marks on an MRML node."""
        for name, value in self.attributes().items():
            node.SetAttribute(name, value)

    def mark_segment(self, segment: Any) -> None:
        """Put the marks on a ``vtkSegment``; they travel in the segment's tags, also through ``.seg.nrrd``."""
        for name, value in self.attributes().items():
            segment.SetTag(name, escape_tag(value))

    @classmethod
    def of_segment(cls, segment: Any) -> Self | None:
        """The marks of a ``vtkSegment``, or None."""
        attributes = {}
        for name in [f"{PREFIX}PseudoLabel", *(_tag_name(field.name) for field in fields(cls))]:
            value = get_tag(segment, name)
            if value is not None:
                attributes[name] = unescape_tag(value)
        return cls.from_attributes(attributes)


def is_pseudo_label(node: Any) -> bool:
    """Whether a node is marked as a pseudo-label."""
    return node.GetAttribute(f"{PREFIX}PseudoLabel") == "1"


def get_tag(segment: Any, name: str) -> str | None:
    """A segment's tag, or None."""
    from vtkmodules.vtkCommonCore import reference

    value = reference("")
    return str(value) if segment.GetTag(name, value) else None


def escape_tag(value: str) -> str:
    """Text that ``.seg.nrrd`` can hold: there ``|`` parts tags, and line breaks part fields."""
    return value.replace("%", "%25").replace("|", "%7C").replace("\n", "%0A").replace("\r", "%0D")


def unescape_tag(value: str) -> str:
    """The inverse of :func:`escape_tag`."""
    return value.replace("%0D", "\r").replace("%0A", "\n").replace("%7C", "|").replace("%25", "%")


def _tag_name(field: str) -> str:
    special = {"case_id": "CaseID", "weights_sha256": "WeightsSHA256"}
    return PREFIX + special.get(field, "".join(part.capitalize() for part in field.split("_")))
