"""Where a labelled volume is inserted into an unlabelled one (Algorithm 2, line 3)."""

from ..seeds import named_rng

__all__ = ["insertion_positions"]


def insertion_positions(
    seed: int, case_id: str, labelled_id: str, class_name: str, slices: int, insertions: int
) -> list[int]:
    """Draw insertion positions without replacement, in ascending order.

    Position k puts the labelled volume *before* slice k of the unlabelled one, k in 0..slices-1, as the official code
    does. The draw depends on the names only, so neither order, splitting nor resuming a job changes it. With fewer
    slices than insertions every position is used once.

    Args:
        seed: The run's seed.
        case_id: The unlabelled case.
        labelled_id: The labelled case that is inserted.
        class_name: The class that is segmented.
        slices: Number of slices of the unlabelled volume.
        insertions: R.

    Raises:
        ValueError: ``slices`` or ``insertions`` is below 1.
    """
    if slices < 1 or insertions < 1:
        raise ValueError(f"Need at least one slice and one insertion, got {slices} and {insertions}.")
    if slices <= insertions:
        return list(range(slices))
    chosen = named_rng(seed, case_id, labelled_id, class_name).choice(slices, size=insertions, replace=False)
    return sorted(int(position) for position in chosen)
