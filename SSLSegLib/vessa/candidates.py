"""Which template a picture gets (paper 2, equation 1)."""

from dataclasses import dataclass

import numpy as np

__all__ = ["TEMPERATURE", "TOP", "Candidates", "sampling_probabilities"]

TOP, TEMPERATURE = 3, 0.1
"""The paper fixes three candidates and leaves tau open; cosine similarities of medical slices lie close together."""


@dataclass(frozen=True)
class Candidates:
    """The templates most like a picture, best first.

    Args:
        indices: Of the bank's templates; fewer than asked for where fewer hold the target, none where none does.
        similarities: Their cosine similarity s_i, less the position term if there is one.
    """

    indices: tuple[int, ...]
    similarities: np.ndarray

    def probabilities(self, temperature: float = TEMPERATURE) -> np.ndarray:
        """Equation 1."""
        return sampling_probabilities(self.similarities, temperature)

    def sample(self, rng: np.random.Generator, temperature: float = TEMPERATURE) -> int:
        """One template, drawn by equation 1."""
        return self.indices[int(rng.choice(len(self.indices), p=self.probabilities(temperature)))]


def sampling_probabilities(similarities: np.ndarray, temperature: float = TEMPERATURE) -> np.ndarray:
    """Equation 1: P(x_i) = exp(s_i / tau) / sum over the candidates j of exp(s_j / tau).

    Args:
        similarities: (n,), of the candidates.
        temperature: tau; towards 0 the first candidate is always taken.
    """
    scaled = (np.asarray(similarities, np.float64) - np.max(similarities)) / temperature
    weights = np.exp(scaled)
    return weights / weights.sum()
