"""The report shows the right cases, carries its pictures and escapes what it prints."""

import base64
import csv
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from SSLSegLib.errors import SSLSegError
from SSLSegLib.evaluation import figures
from SSLSegLib.evaluation.commands import evaluate, parse_classes
from SSLSegLib.evaluation.report import write_report
from SSLSegLib.evaluation.reporting import report_results
from SSLSegLib.pseudolabels.merging import MAXIMUM_ENTROPY
from SSLSegLib.pseudolabels.review import save_review


class Page(HTMLParser):
    """Text, links and pictures of a page; refuses tags that are not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words, self.sources, self.open = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read_page(path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def reported(shared_job):
    """The report of a job, the scores, and the same with another title."""
    path, scores = report_results(shared_job.folder, shared_job.cohort, shared_job.folder / "report")
    again, _ = report_results(
        shared_job.results, shared_job.cohort, shared_job.folder / "again", title="<script>alert('x')</script>"
    )
    return path, scores, again


def test_a_job_report_is_one_page_that_carries_its_pictures(reported):
    path, scores, _ = reported
    page = read_page(path)
    assert [each.case_id for each in scores] == ["exact", "missed", "near", "off"]
    pictures = [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in page.sources]
    names = ["overview.png", "best.png", "median.png", "worst.png"]
    assert pictures == [(path.parent / name).read_bytes() for name in names]
    assert "exact: best, Dice 1.000" in page.text
    assert "off: median, Dice 0.571" in page.text
    assert "missed: worst, Dice 0.000" in page.text
    assert "research use only" in page.text
    assert "4 of 5 cases" in page.text
    assert "TFFS-MedSAM2" in page.text
    rows = list(csv.DictReader((path.parent / "scores.csv").read_text().splitlines()))
    assert len(rows) == 4 * 2


def test_cases_left_out_of_distances_are_counted_on_the_page(reported):
    text = reported[0].read_text(encoding="utf-8")
    row = re.search(r"liver</td><td class=\"text\">HD \(mm\)</td>.*?</tr>", text, re.DOTALL)[0]
    assert re.findall(r"<td[^>]*>(\d+)</td>", row) == ["3", "1", "0"]


def test_what_is_printed_is_escaped_and_pictures_are_the_same_bytes_each_time(reported):
    path, _, again = reported
    assert "<script>" not in again.read_text(encoding="utf-8")
    assert "<script>" in read_page(again).text
    for name in ("best.png", "worst.png", "overview.png"):
        assert (path.parent / name).read_bytes() == (again.parent / name).read_bytes()


def test_without_references_cases_are_chosen_by_uncertainty_and_an_older_report_is_replaced(job):
    cohort = job.cohort.model_copy(
        update={"cases": tuple(case.model_copy(update={"reference": None}) for case in job.cohort.cases)}
    ).at(job.folder)
    save_review(job.results / "off", "rejected")
    (job.folder / "report").mkdir()
    for name in ("report.html", "scores.csv", "overview.png"):
        (job.folder / "report" / name).write_bytes(b"older")
    path, scores = report_results(job.folder, cohort, job.folder / "report")
    page = read_page(path)
    assert scores == []
    assert not (path.parent / "scores.csv").exists()
    assert not (path.parent / "overview.png").exists()
    assert "missed: least certain" in page.text
    assert "most certain, expected Dice 0.9" in page.text
    assert "rejected" in page.text
    assert "Dice" not in re.sub("[Ee]xpected Dice", "", page.text), "there is no reference to compare with"


def test_a_report_of_nothing_is_refused(job):
    with pytest.raises(ValueError, match="at least one"):
        write_report(job.folder / "out", [], job.cohort.classes, title="empty")
    shutil.rmtree(job.results)
    (job.folder / "results").mkdir()
    with pytest.raises(SSLSegError, match="no finished results"):
        report_results(job.folder, job.cohort, job.folder / "out")


def test_uncertainty_has_the_same_scale_in_every_picture(job):
    truth = job.reference
    for highest in (0.1, 0.6):
        uncertainty = np.full(truth.array.shape, highest, np.float32)
        view = figures.CaseView("c", None, truth.array, truth.geometry, None, uncertainty)
        figure = figures.case_figure(view, job.cohort.classes)
        (scale,) = (child for axes in figure.axes for child in axes.child_axes)
        assert scale.get_ylim() == (0.0, MAXIMUM_ENTROPY)
        overlay = figure.axes[4].images[1].get_array()
        assert np.allclose(overlay[0, 0, :3], figures._UNCERTAINTY(highest / MAXIMUM_ENTROPY)[:3])


def test_contours_lie_around_the_mask_in_the_turned_picture(job):
    view = figures.CaseView("c", None, job.reference.array, job.reference.geometry)
    figure = figures.case_figure(view, job.cohort.classes)
    axes = figure.axes[1]
    index = figures.choose_slices(job.reference.array)[1]
    shown = axes.images[0].get_array().shape
    vertices = np.concatenate([path.vertices for lines in axes.collections for path in lines.get_paths()])
    # This grid is stored as shown (rows to posterior, columns to the left), and the crop keeps it whole.
    assert shown == job.reference.array.shape[1:]
    rows, columns = np.nonzero(job.reference.array[index])
    assert vertices.min(axis=0) == pytest.approx([columns.min() - 0.5, rows.min() - 0.5])
    assert vertices.max(axis=0) == pytest.approx([columns.max() + 0.5, rows.max() + 0.5])


def test_slices_spread_through_the_structure():
    mask = np.zeros((40, 3, 3), np.uint8)
    mask[10:31, 1, 1] = 1
    assert figures.choose_slices(mask) == [15, 20, 25]
    assert figures.choose_slices(np.zeros((1, 3, 3), np.uint8)) == [0]
    assert len(figures.choose_slices(np.zeros((40, 3, 3), np.uint8))) == 3
    assert figures.choose_slices(np.zeros_like(mask), mask) == [15, 20, 25]


@pytest.fixture
def command():
    app = typer.Typer()
    app.command("evaluate")(evaluate)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})


def test_the_command_prints_a_table_and_writes_tables_and_report(job, command):
    result = command(job.folder, job.folder / "cohort.json", "--out", job.folder / "out")
    assert result.exit_code == 0, result.output
    assert "0.857" in result.output
    assert "not scored, no reference: unknown" in result.output
    for name in ("report.html", "scores.csv", "summary.csv", "best.png", "worst.png"):
        assert (job.folder / "out" / name).is_file()


def test_the_command_takes_folders_classes_and_images(job, command, tmp_path):
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    (predictions / "near.nii.gz").write_bytes((job.results / "near" / "labels.nii.gz").read_bytes())
    result = command(
        predictions, job.folder / "references", "--classes", "1=liver,3=spleen", "--images", job.folder / "images"
    )
    assert result.exit_code == 0, result.output
    page = read_page(predictions / "evaluation" / "report.html")
    assert "spleen" in page.text
    assert "Predictions of a method" in page.text
    assert "In no average, no prediction: exact, missed, off." in page.text


def test_the_command_leaves_a_folder_with_other_files_alone(job, command, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "scores.csv").write_text("mine")
    result = command(job.folder, job.folder / "cohort.json", "--output", tmp_path / "mine")
    assert isinstance(result.exception, SSLSegError)
    assert (tmp_path / "mine" / "scores.csv").read_text() == "mine"


def test_classes_on_the_command_line():
    assert [(each.value, each.name) for each in parse_classes("1=left atrium, 2")] == [
        (1, "left atrium"),
        (2, "label 2"),
    ]
    for wrong in ("liver", "0=x", "1=a,1=b", "300=x", "1=a;2=b"):
        with pytest.raises(SSLSegError, match="no class"):
            parse_classes(wrong)
