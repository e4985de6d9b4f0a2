"""Case scores, their summary and their tables."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.errors import CaseError
from SSLSegLib.evaluation.scores import ALL_CLASSES, METRICS, score_case, summarise, write_scores_csv, write_summary_csv

CLASSES = [SegmentClass(value=1, name="liver"), SegmentClass(value=4, name="spleen")]
GRID = Geometry((6, 12, 10), np.diag([0.5, 2.0, 3.0, 1.0]))  # spacing (3, 2, 0.5) along k, j, i


def label_map(liver: slice | None, spleen: slice | None = None, geometry: Geometry = GRID) -> LabelMap:
    array = np.zeros(geometry.shape, np.uint8)
    if liver:
        array[2:4, 2:6, liver] = 1
    if spleen:
        array[2:4, 8:10, spleen] = 4
    return LabelMap(array, geometry)


def read_table(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def test_a_case_is_scored_class_by_class_in_millimetres():
    scored = score_case("c1", label_map(slice(1, 5), slice(0, 4)), label_map(slice(2, 6), slice(0, 4)), CLASSES)
    liver, spleen = scored.classes
    assert (liver.class_name, spleen.class_name) == ("liver", "spleen")
    assert liver.dice == pytest.approx(0.75)
    assert liver.iou == pytest.approx(0.6)
    assert liver.hd_mm == pytest.approx(0.5)
    assert liver.volume_ml == pytest.approx(2 * 4 * 4 * 3.0 / 1000)
    assert (spleen.dice, spleen.hd_mm, spleen.empty) == (1.0, 0.0, "none")
    assert scored.mean("dice") == pytest.approx(0.875)


def test_label_values_that_are_no_class_are_background():
    prediction = label_map(slice(1, 5))
    prediction.array[0, 0, 0] = 9
    assert score_case("c1", prediction, label_map(slice(1, 5)), CLASSES[:1]).classes[0].dice == 1.0


def test_another_geometry_is_refused_by_name():
    elsewhere = Geometry(GRID.shape, np.diag([0.5, 2.0, 4.0, 1.0]))
    with pytest.raises(CaseError, match=r"c7.*geometry"):
        score_case("c7", label_map(slice(1, 5), geometry=elsewhere), label_map(slice(1, 5)), CLASSES)


def test_the_summary_leaves_missing_distances_out_and_says_how_many():
    cases = [
        score_case("found", label_map(slice(1, 5)), label_map(slice(2, 6)), CLASSES[:1]),
        score_case("perfect", label_map(slice(1, 5)), label_map(slice(1, 5)), CLASSES[:1]),
        score_case("missed", label_map(None), label_map(slice(1, 5)), CLASSES[:1]),
        score_case("absent", label_map(None), label_map(None), CLASSES[:1]),
    ]
    assert [case.classes[0].empty for case in cases] == ["none", "none", "prediction", "both"]
    rows = {row.metric: row for row in summarise(cases)}
    assert set(rows) == set(METRICS)
    assert rows["dice"].mean == pytest.approx((0.75 + 1 + 0 + 1) / 4)
    assert rows["dice"].sd == pytest.approx(np.std([0.75, 1, 0, 1], ddof=1))
    assert (rows["dice"].counted, rows["dice"].excluded, rows["dice"].both_empty) == (4, 0, 1)
    assert rows["hd_mm"].mean == pytest.approx(0.5 / 3)
    assert (rows["hd_mm"].counted, rows["hd_mm"].excluded) == (3, 1)


def test_the_diagonal_can_stand_for_a_missed_organ():
    missed = score_case("missed", label_map(None), label_map(slice(1, 5)), CLASSES[:1], empty="diagonal")
    assert missed.classes[0].hd_mm == pytest.approx(math.sqrt((5 * 3.0) ** 2 + (11 * 2.0) ** 2 + (9 * 0.5) ** 2))
    assert {row.metric: row.excluded for row in summarise([missed])}["hd_mm"] == 0


def test_with_several_classes_the_mean_of_classes_is_a_row_of_its_own():
    cases = [score_case("c1", label_map(slice(1, 5), slice(0, 4)), label_map(slice(2, 6), slice(0, 4)), CLASSES)]
    dice = {row.class_name: row.mean for row in summarise(cases) if row.metric == "dice"}
    assert dice == pytest.approx({"liver": 0.75, "spleen": 1.0, ALL_CLASSES: 0.875})
    assert summarise([]) == []


def test_tables_are_written_with_empty_fields_where_there_is_no_distance(tmp_path):
    cases = [score_case("c1", label_map(None, slice(0, 4)), label_map(slice(2, 6), slice(0, 4)), CLASSES)]
    write_scores_csv(tmp_path / "scores.csv", cases)
    write_summary_csv(tmp_path / "summary.csv", summarise(cases))
    rows = read_table(tmp_path / "scores.csv")
    assert [(row["case"], row["class"], row["dice"], row["hd_mm"], row["empty"]) for row in rows] == [
        ("c1", "liver", "0", "", "prediction"),
        ("c1", "spleen", "1", "0", "none"),
    ]
    summary = read_table(tmp_path / "summary.csv")
    assert len(summary) == 3 * len(METRICS)
    json.dumps(cases[0].as_dict(), allow_nan=False)
