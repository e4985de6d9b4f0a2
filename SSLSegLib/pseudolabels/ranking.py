"""Which pseudo-labels to look at first."""

from collections.abc import Mapping

from SSLSegLib.pseudolabels.label import LabelScores

__all__ = ["rank_by_uncertainty"]


def rank_by_uncertainty(scores: Mapping[str, LabelScores]) -> list[str]:
    """Case ids from the least to the most trustworthy end: the one to review first comes first.

    Cases where nothing was found lead the list (an empty label is sure of itself and most often wrong); the others
    follow by rising expected Dice, or, where an earlier version has left some without, all by falling mean entropy.
    Equal cases are ordered by id, so the order never depends on the order of the mapping.
    """
    known = all(each.empty or each.expected_dice for each in scores.values())

    def doubt(each: LabelScores) -> float:
        return -(each.mean_expected_dice or 0.0) if known else each.mean_entropy

    return sorted(scores, key=lambda case_id: (not scores[case_id].empty, -doubt(scores[case_id]), case_id))
