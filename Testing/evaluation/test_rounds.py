"""Scores and picture of a self-training's stages, from files."""

import csv
from pathlib import Path

import numpy as np
import pytest

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.cases.writing import write_label, write_scalar
from SSLSegLib.evaluation.rounds import plot_rounds, score_rounds, write_rounds_csv
from SSLSegLib.selftraining.folders import WorkFolder
from SSLSegLib.selftraining.report import RoundReport, write_report

CLASSES = (SegmentClass(value=3, name="liver"),)
GRID = Geometry((4, 10, 10), np.eye(4))


def _block(rows: int) -> LabelMap:
    array = np.zeros(GRID.shape, np.uint8)
    array[:, :rows] = 3
    return LabelMap(array, GRID)


@pytest.fixture
def run(tmp_path: Path):
    """References of 6 rows; pseudo-labels of 2, round 1 of 3, its model of 6 and the baseline of 2 on the test case."""
    cases = []
    for case_id, role in (("a", "labelled"), ("u1", "unlabelled"), ("u2", "unlabelled"), ("t", "test")):
        write_scalar(tmp_path / f"{case_id}.nii.gz", np.zeros(GRID.shape, np.float32), GRID)
        write_label(tmp_path / f"{case_id}_l.nii.gz", _block(6), CLASSES, reference=GRID)
        known = {"label" if role == "labelled" else "reference": f"{case_id}_l.nii.gz"}
        if case_id == "u2":
            known = {}  # nothing is known about it, so nothing is scored
        cases.append(Case(id=case_id, role=role, images=(f"{case_id}.nii.gz",), **known))
    cohort = Cohort(classes=CLASSES, cases=tuple(cases)).at(tmp_path)
    first = WorkFolder(tmp_path / "work").round(1)
    files = {
        tmp_path / "results" / "u1" / "labels.nii.gz": 2,
        tmp_path / "results" / "u2" / "labels.nii.gz": 2,
        first.predictions / "u1.nii.gz": 3,
        tmp_path / "final" / "t" / "labels.nii.gz": 6,
        tmp_path / "baseline" / "t" / "labels.nii.gz": 2,
    }
    for path, rows in files.items():
        write_label(path, _block(rows), CLASSES, reference=GRID)
    facts = {"labelled": ("a",), "trained": (), "left_out": {}, "folds": {0: ("u1",)}, "checkpoints": {}, "changes": {}}
    report = RoundReport(name="round 1", configuration="2d", agreement=0.8, seconds=1.0, **facts)
    write_report(first.report, report)
    results = {case: tmp_path / "results" / case for case in ("u1", "u2")}
    predictions = {"round 1": tmp_path / "final", "labelled only": tmp_path / "baseline"}
    return score_rounds(cohort, results, tmp_path / "work", predictions)


def test_each_stage_is_scored_on_its_own_cases(run):
    assert [(stage.name, stage.group) for stage in run] == [
        ("pseudo-labels", "unlabelled"),
        ("round 1", "unlabelled"),
        ("round 1", "test"),
        ("labelled only", "test"),
    ]
    assert [stage.dice for stage in run] == pytest.approx([2 * 2 / 8, 2 * 3 / 9, 1.0, 2 * 2 / 8])
    assert [stage.agreement for stage in run] == [None, 0.8, None, None]
    assert [case.case_id for case in run[0].cases] == ["u1"]


def test_the_table_has_a_row_a_stage(run, tmp_path):
    write_rounds_csv(tmp_path / "rounds.csv", run)
    rows = list(csv.DictReader((tmp_path / "rounds.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["dice liver"] for row in rows] == ["0.5000", "0.6667", "1.0000", "0.5000"]
    assert [row["agreement"] for row in rows] == ["", "0.8000", "", ""]


def test_the_picture_is_drawn(run, tmp_path):
    plot_rounds(tmp_path / "rounds.png", run)
    assert (tmp_path / "rounds.png").read_bytes().startswith(b"\x89PNG")
