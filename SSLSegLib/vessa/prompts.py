"""The prompt bank: what the language model is asked, and what it is to answer. Imports nothing heavy."""

import numpy as np

from SSLSegLib.cases.classes import SegmentClass

__all__ = [
    "ANSWERS",
    "FIXED_ANSWER",
    "INSTRUCTIONS",
    "SEG_TOKEN",
    "class_phrase",
    "draw_answer",
    "draw_instruction",
    "instruction",
    "plain_phrase",
]

SEG_TOKEN = "<SEG>"

INSTRUCTIONS = (
    # The paper's three examples, its figure 3 and section 3.1.
    "I've provided two images: the target image and a reference image with a segmentation mask highlighted in green "
    "overlay. Segment the same structure in the target image.",
    "Segment the target image following the reference segmentation pattern (green overlay).",
    "Apply the segmentation pattern from the template (green overlay) to the target image.",
    # More of the same kind; none names the structure, which the overlay shows.
    "The first image is the target, the second a template whose segmentation is drawn in green. Segment the target.",
    "Find in the first image the structure that is highlighted in green in the second image.",
    "Use the green overlay of the reference image as a guide and segment the matching region of the target image.",
    "Which region of the target image corresponds to the green region of the reference image? Segment it.",
    "Transfer the green annotation of the template (second image) to the target (first image).",
)
"""Instructions. The target image comes first and the template second, in the text as in the images."""

ANSWERS = (
    "It is <SEG>.",
    "Sure, <SEG>.",
    "Sure, it is <SEG>.",
    "Sure, the segmentation result is <SEG>.",
    "<SEG>.",
)
"""Answers, as in LISA. Each holds the token once."""

FIXED_ANSWER = ANSWERS[0]
"""What inference appends: one forward pass gives the state at <SEG>, no text is generated and none can be missed."""


def instruction(number: int = 0, class_phrase: str | None = None) -> str:
    """One instruction, with the structure's name if one is given (the paper's prompts name none)."""
    text = INSTRUCTIONS[number % len(INSTRUCTIONS)]
    return text if class_phrase is None else f"{text} The structure is: {class_phrase}."


def draw_instruction(rng: np.random.Generator, class_phrase: str | None = None) -> str:
    """A random instruction."""
    return instruction(int(rng.integers(len(INSTRUCTIONS))), class_phrase)


def draw_answer(rng: np.random.Generator) -> str:
    """A random answer."""
    return ANSWERS[int(rng.integers(len(ANSWERS)))]


def class_phrase(segment: SegmentClass) -> str:
    """What a class is called in an instruction: in the words of its terminology, which every cohort shares, or else by
    its name, which may be anything."""
    coded = segment.terminology
    if coded is None:
        return plain_phrase(segment.name)
    return plain_phrase(" ".join(each.meaning for each in (coded.modifier, coded.type) if each is not None))


def plain_phrase(name: str) -> str:
    """A name as words; special tokens such as <SEG> cannot stand in it."""
    return " ".join("".join(" " if each in "<|>_" else each for each in name).lower().split())
