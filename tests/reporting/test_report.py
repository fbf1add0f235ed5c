"""Figures, the page and the table in the terminal."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from decodiff_pipeline.evaluation.assessment import assess
from decodiff_pipeline.evaluation.config import CostConfig
from decodiff_pipeline.evaluation.predictions import file_stem
from decodiff_pipeline.evaluation.protocols import labelled
from decodiff_pipeline.evaluation.thresholds import fit_thresholds
from decodiff_pipeline.reporting.figures import choose, draw_figures
from decodiff_pipeline.reporting.report import ReportInput, render_report
from decodiff_pipeline.reporting.summary import main, render_table, verdict

if TYPE_CHECKING:
    from pathlib import Path

    from tests.evaluation.conftest import World

NASTY = "<script>alert(1)</script> & $x_1$"


def evaluated(
    world: World, baselines: dict[str, Any] | None = None, costs: CostConfig | None = None
) -> tuple[dict[str, Any], str]:
    store = world.scored()
    thresholds = fit_thresholds(store, 0.05, costs)
    metrics = assess(
        store,
        world.manifest,
        world.images,
        thresholds,
        world.config,
        baseline={"pca": baselines or {}},
    ).metrics
    index = labelled(store.index(), world.images, store.geometry(), world.config.protocol)
    return metrics, render_report(ReportInput(metrics, thresholds, index, store, world.images))


class Page(HTMLParser):
    """Collects the text, the tags and everything that a page could load."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href", "srcset"}]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_and_loads_nothing(plate: World) -> None:
    _, html = evaluated(plate)
    page = Page(html)
    assert page.tags.count("script") == 1
    assert page.tags.count("img") == 3 * 13  # input, heat map, reconstruction of each test image
    assert all(link.startswith(("data:", "#")) for link in page.links)
    anchors = [link[1:] for link in page.links if link.startswith("#")]
    assert all(f'id="{anchor}"' in html for anchor in anchors)
    assert "url(" not in html
    assert 'name="viewport"' in html
    assert "lowest rate that so few images allow" in page.text  # 5 images, 5 %
    assert not re.search(r"[a-z%]\.[A-Z][a-z]", page.text)  # a space after each sentence
    assert re.search(r"<title>raw: evaluation, \d{4}-\d\d-\d\d</title>", html)


def test_names_are_text(world: World) -> None:
    world.model.categories = (NASTY,)
    world.add(NASTY, "test", "good", 2).add(NASTY, "test", "defective", 2, mask=True)
    _, html = evaluated(world)
    assert Page(html).tags.count("script") == 1
    assert NASTY in Page(html).text


def test_a_category_that_does_not_beat_the_baseline_is_marked(plate: World) -> None:
    metrics, html = evaluated(plate, {"plate": {"image_auroc": 1.0, "pixel_ap": 0.5}})
    marked = re.findall(r'<small class="lost">▼ (.*?)</small>', html)
    assert marked == ["PCA 1.000", "PCA 1.000"]  # the category's image AUROC, a draw; the mean's
    assert "1.000*" in render_table(metrics)
    metrics, html = evaluated(plate, {"plate": {"image_auroc": 0.9, "pixel_ap": 0.5}})
    assert 'small class="lost"' not in html
    assert "*" not in render_table(metrics)


def test_the_page_tells_what_the_crop_takes_away_and_who_counts_as_good(cropped: World) -> None:
    _, html = evaluated(cropped)
    assert "30.0 % of the defective pixels; 1 of 4 images with a mask has no defect" in html
    assert "as good" not in html
    cropped.config = cropped.config.model_copy(update={"protocol": "released"})
    metrics, html = evaluated(cropped)
    assert "1 defective image counts as good" in html
    assert render_table(metrics).startswith("protocol released\n")


@pytest.mark.parametrize(
    ("pca", "against", "sentence"),
    [
        ({}, {}, "Image AUROC 0.800 and pixel AP 0.300, mean of 2 categories."),
        (
            {"a": {"image_auroc": 0.7}, "b": {"image_auroc": 0.9}},
            {"verdict": "better", "difference": 0.02},
            "Image AUROC 0.800 and pixel AP 0.300, mean of 2 categories; 1 of 2 categories are "
            "above the PCA baseline. Against version 2: I-AUROC better (+0.020).",
        ),
        (
            {"a": {"image_auroc": 0.9}},
            {"verdict": None, "difference": 0.02},
            "Image AUROC 0.800 and pixel AP 0.300, mean of 2 categories, not above the PCA "
            "baseline.",
        ),
    ],
)
def test_the_verdict_says_how_good_and_against_what(
    pca: dict[str, Any], against: dict[str, Any], sentence: str
) -> None:
    row = {"image_auroc": 0.8, "pixel_ap": 0.3}
    metrics = {"categories": {"a": row, "b": row}, "mean": row, "baseline": {"pca": pca}}
    change = {"image_auroc": against} if against else {}
    assert verdict(metrics, {"reference": "version 2", "mean": {"metrics": change}}) == sentence


def test_misses_come_first_and_no_image_twice(plate: World) -> None:
    index = plate.scored().index()
    test = index[index["split"] == "test"]
    threshold = test[test["label"] == "defective"]["score"].sort_values().iloc[1]
    panels = choose(test, threshold, 2)
    verdicts = [panel.verdict for panel in panels]
    assert verdicts == ["missed", "detected", "detected", "detected", "passed", "passed"]
    paths = [panel.row.path for panel in panels]
    assert len(set(paths)) == len(paths)
    scores = [panel.row.score for panel in panels]
    assert scores[0] == test[test["label"] == "defective"]["score"].min()
    assert scores[4] == test[test["label"] == "good"]["score"].max()


def test_a_figure_for_each_category_with_the_four_pictures(world: World) -> None:
    for name in ("plate", "odd/../$name"):
        world.add(name, "test", "good", 1).add(name, "test", "defective", 1, mask=True)
        world.add(name, "test", "defective", 1)
    store = world.scored()
    thresholds = fit_thresholds(store, 0.05)
    figures = draw_figures(store.index(), store, world.images, thresholds, world.config)
    assert set(figures) == {"plate", file_stem("odd/../$name")}
    axes = figures["plate"].axes
    titles = [axis.get_title() for axis in axes[:4]]
    assert titles == ["input", "reconstruction", "ground truth", "anomaly map"]
    written = [text.get_text() for axis in axes for text in axis.texts]
    assert "no mask" in written
    assert "no defect" in written
    assert len(axes) == 12


def test_a_threshold_by_costs_is_called_fitted_on_labels(plate: World) -> None:
    costs = CostConfig(miss=20, false_alarm=1, defective_share=0.02)
    text = " ".join(Page(evaluated(plate, costs=costs)[1]).text.split())
    assert "fitted on labels: the least cost with 5 good calibration" in text
    assert "a miss at 20, a false alarm at 1 and 2.0 % of the images defective" in text
    assert "that are used for nothing else" not in text
    assert "fitted on labels" not in evaluated(plate)[1]


def test_the_table_is_printed_from_the_file(
    plate: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics, _ = evaluated(plate, {"plate": {"image_auroc": 0.75, "pixel_ap": None}})
    file = tmp_path / "metrics.json"
    file.write_text(json.dumps(metrics))
    assert main([str(file)]) == 0
    protocol, header, row, mean = capsys.readouterr().out.splitlines()
    assert protocol == "protocol strict"
    assert header.split()[:5] == ["category", "good", "bad", "I-AUROC", "(PCA)"]
    assert row.split()[:5] == ["plate", "6", "4", "1.000", "0.750"]
    assert mean.split()[0] == "mean"


def test_a_missing_file_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "metrics.json")]) == 1
    error = capsys.readouterr().err
    assert "metrics.json" in error
    assert "kedro run --pipelines evaluation" in error
    assert error.count("\n") == 1
