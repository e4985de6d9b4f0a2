"""Which pseudo-labels to look at first."""

from collections.abc import Mapping

from SSLSegLib.pseudolabels.label import LabelScores

__all__ = ["rank_by_uncertainty"]


def rank_by_uncertainty(scores: Mapping[str, LabelScores]) -> list[str]:
    """Case ids from the least to the most trustworthy end: the one to review first comes first.

    Cases where nothing was found lead the list (an empty label is sure of itself and most often wrong); the others
    follow by falling mean entropy around the foreground. Equal cases are ordered by id, so the order never depends on
    the order of the mapping.
    """
    return sorted(scores, key=lambda case_id: (not scores[case_id].empty, -scores[case_id].mean_entropy, case_id))
