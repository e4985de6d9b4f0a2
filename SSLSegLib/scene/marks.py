"""What tells a pseudo-label from an expert's label, wherever the node or file goes (decision 2).

The names are those that result files carry (:func:`SSLSegLib.pseudolabels.storage.provenance_tags`), so that a
``labels.seg.nrrd`` opened by hand is known for what it is, too.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from SSLSegLib.pseudolabels.storage import provenance_tags

__all__ = ["PREFIX", "PseudoLabelMarks", "is_pseudo_label"]

PREFIX = "SSLSeg."
_KIND, _CASE, _VERSION = f"{PREFIX}Kind", f"{PREFIX}CaseID", f"{PREFIX}Version"
_METHOD, _WEIGHTS, _SHA256 = f"{PREFIX}Method", f"{PREFIX}Weights", f"{PREFIX}WeightsSHA256"
_SEED, _LABELLED, _DATE = f"{PREFIX}Seed", f"{PREFIX}Labelled", f"{PREFIX}Date"
_SOFTWARE = f"{PREFIX}Software"
_READ = (_KIND, _CASE, _VERSION, _METHOD, _WEIGHTS, _SHA256, _SEED, _LABELLED, _DATE, _SOFTWARE)


@dataclass(frozen=True, kw_only=True)
class PseudoLabelMarks:
    """How a pseudo-label came about.

    Args:
        case_id: The case it labels.
        method: Such as ``TFFS-MedSAM2``.
        weights: Name of the network's weights; empty for a method without.
        weights_sha256: Their hex digest.
        seed: The run's seed; None for a method that draws nothing.
        labelled_cases: Ids of the expert-labelled cases it was made from.
        created: Date and time, ISO 8601.
        version: Version of this software.
    """

    case_id: str
    method: str
    weights: str = ""
    weights_sha256: str = ""
    seed: int | None = None
    labelled_cases: tuple[str, ...] = ()
    created: str = ""
    version: str = ""

    @classmethod
    def from_provenance(cls, case_id: str, provenance: Mapping[str, Any]) -> Self:
        """From a result's provenance (:func:`SSLSegLib.pseudolabels.label.make_provenance`)."""
        marks = cls.from_attributes({_CASE: case_id, **provenance_tags(dict(provenance))})
        assert marks is not None  # provenance_tags always says what it is
        return marks

    def attributes(self) -> dict[str, str]:
        """As node attributes and segment tags; what is empty is left out."""
        attributes = {
            _KIND: "pseudo-label",
            _CASE: self.case_id,
            _METHOD: self.method,
            _WEIGHTS: self.weights,
            _SHA256: self.weights_sha256,
            _SEED: "" if self.seed is None else str(self.seed),
            _LABELLED: " ".join(self.labelled_cases),
            _DATE: self.created,
            _VERSION: self.version,
        }
        return {name: value for name, value in attributes.items() if value}

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, str]) -> Self | None:
        """Read back what :meth:`attributes` or a result file says; None for anything but a pseudo-label."""
        if attributes.get(_KIND) != "pseudo-label":
            return None
        seed = attributes.get(_SEED, "")
        return cls(
            case_id=attributes.get(_CASE, ""),
            method=attributes.get(_METHOD, ""),
            weights=attributes.get(_WEIGHTS, ""),
            weights_sha256=attributes.get(_SHA256, ""),
            seed=int(seed) if seed.removeprefix("-").isdecimal() else None,
            labelled_cases=tuple(attributes.get(_LABELLED, "").split()),
            created=attributes.get(_DATE, ""),
            version=attributes.get(_VERSION) or _version_in(attributes.get(_SOFTWARE, "")),
        )

    @classmethod
    def of_node(cls, node: Any) -> Self | None:
        """The marks of an MRML node, or None."""
        return cls.from_attributes({name: node.GetAttribute(name) or "" for name in _READ})

    @classmethod
    def of_segment(cls, segment: Any) -> Self | None:
        """The marks of a ``vtkSegment``, or None."""
        return cls.from_attributes({name: get_tag(segment, name) or "" for name in _READ})

    def mark_node(self, node: Any) -> None:
        """Put the marks on an MRML node."""
        for name, value in self.attributes().items():
            node.SetAttribute(name, value)

    def mark_segment(self, segment: Any) -> None:
        """Put the marks on a ``vtkSegment``; they travel in the segment's tags, also through ``.seg.nrrd``."""
        for name, value in self.attributes().items():
            # In .seg.nrrd a bar parts tags and a line break ends the field.
            segment.SetTag(name, value.translate({ord(each): " " for each in "|\r\n"}))


def is_pseudo_label(node: Any) -> bool:
    """Whether a node is marked as a pseudo-label, or a segmentation node has a segment that is."""
    if node.GetAttribute(_KIND) == "pseudo-label":
        return True
    if not node.IsA("vtkMRMLSegmentationNode"):
        return False
    segmentation = node.GetSegmentation()
    segments = [segmentation.GetNthSegment(index) for index in range(segmentation.GetNumberOfSegments())]
    return any(get_tag(segment, _KIND) == "pseudo-label" for segment in segments)


def get_tag(segment: Any, name: str) -> str | None:
    """A segment's tag, or None."""
    from vtkmodules.vtkCommonCore import reference

    value = reference("")
    return str(value) if segment.GetTag(name, value) else None


def _version_in(software: str) -> str:
    try:
        return str(json.loads(software).get("SSLSeg", ""))
    except (ValueError, AttributeError):
        return ""
