"""The part of the report on a self-training: its numbers, its sentences, and that names cannot break the page."""

import pytest

from SSLSegLib.evaluation.rounds import Stage
from SSLSegLib.evaluation.rounds_report import BASELINE, findings, rounds_section, step_rows
from SSLSegLib.evaluation.scores import CaseScores, ClassScores
from SSLSegLib.selftraining.agreement import CaseChange
from SSLSegLib.selftraining.report import RoundReport


def scored(case_id: str, *dice: float, hd95: float = 2.0) -> CaseScores:
    names = ("liver", "<b>kidneys")
    classes = (
        ClassScores(name, value, one, one, one, hd95, hd95, hd95, hd95, 1.0, 1.0, "none")
        for value, (name, one) in enumerate(zip(names, dice, strict=True), start=1)
    )
    return CaseScores(case_id, tuple(classes))


def report_of(number: int, agreement: float, *, flagged: bool = False) -> RoundReport:
    change = CaseChange(dice=agreement, changed=0.1, volume=0.0, flagged=flagged)
    facts = {"labelled": ("a",), "trained": ("u1", "u2"), "left_out": {"u3": "empty"}, "folds": {0: ("u1", "u2")}}
    return RoundReport(
        name=f"round {number}",
        configuration="2d",
        checkpoints={},
        agreement=agreement,
        changes={"u1": change},
        seconds=1.0,
        **facts,
    )


REPORTS = [report_of(1, 0.8), report_of(2, 0.95, flagged=True)]
STAGES = [
    Stage("pseudo-labels", "unlabelled", (scored("u1", 0.6, 0.4), scored("u2", 0.8, 0.6, hd95=float("nan")))),
    Stage("round 1", "unlabelled", (scored("u1", 0.7, 0.5), scored("u2", 0.7, 0.5)), 0.8),
    Stage("round 2", "unlabelled", (scored("u1", 0.9, 0.7), scored("u2", 0.7, 0.5)), 0.95),
    Stage("round 2", "test", (scored("t1", 0.9, 0.7),)),
    Stage(BASELINE, "test", (scored("t1", 0.6, 0.4),)),
]


def test_each_step_has_a_row_with_the_means_over_its_scans():
    rows = step_rows(STAGES, REPORTS)
    assert [row.group for row in rows] == ["unlabelled"] * 3 + ["test"] * 2
    assert [row.dice for row in rows] == pytest.approx([0.6, 0.6, 0.7, 0.8, 0.5])
    assert rows[0].by_class == pytest.approx({"liver": 0.7, "<b>kidneys": 0.5})
    assert rows[0].hd95_mm == 2.0  # of the one case that has a distance
    assert [row.agreement for row in rows] == [None, 0.8, 0.95, None, None]
    assert "Final model" in rows[3].step
    assert "labelled scans only" in rows[4].step


def test_the_sentences_state_gains_with_their_sign_and_how_many_scans_they_rest_on():
    first, second, third, left_out, changed = findings(STAGES, REPORTS)
    assert "from Dice 0.600 to 0.700 (+0.100; better in 1 of 2 scans)" in first
    assert "0.800" in second
    assert "difference of +0.300 (better in 1 of 1 scans)" in second
    assert "So few test scans (1)" in third
    assert "u3 (empty)" in left_out
    assert changed.endswith(": u1.")
    worse = findings(
        [*STAGES[:3], Stage("round 2", "test", STAGES[4].cases), Stage(BASELINE, "test", STAGES[3].cases)], []
    )
    assert worse == []  # nothing is compared with a model that does not exist
    lost = findings([Stage("round 2", "test", STAGES[4].cases), Stage(BASELINE, "test", STAGES[3].cases)], REPORTS)
    assert "difference of -0.300 (better in 0 of 1 scans)" in lost[0]


def test_the_part_of_the_page_holds_table_and_picture_and_escapes_names(tmp_path):
    section = rounds_section(tmp_path, STAGES, REPORTS, remarks=["5 < 6 epochs"])
    assert "&lt;b&gt;kidneys" in section.body
    assert "<b>kidneys" not in section.body
    assert "5 &lt; 6 epochs" in section.body
    assert "data:image/png;base64," in section.body
    assert (tmp_path / "rounds.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "rounds.csv").is_file()


def test_without_references_agreement_is_still_shown_and_said(tmp_path):
    section = rounds_section(tmp_path, [], REPORTS)
    assert "0.950" in section.body
    assert "nothing could be scored" in section.body
    assert not (tmp_path / "rounds.png").exists()
