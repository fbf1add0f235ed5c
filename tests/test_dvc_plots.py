"""`dvc plots` draws without a network."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from dvc_render.html import HTML
from dvc_render.vega import VegaRenderer

ROOT = Path(__file__).parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)


def test_the_page_of_the_plots_draws_offline(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on the path: apt-get install chromium")
    (name,) = re.findall(r"html_template = (.*)", (ROOT / ".dvc" / "config").read_text())
    points = [
        {"category": "mono", "fpr": x, "tpr": y, "rev": "workspace"}
        for x, y in ((0, 0), (0.2, 0.9), (1, 1))
    ]
    plot = VegaRenderer(
        points, "roc", x="fpr", y="tpr",
        template=str(ROOT / ".dvc" / "plots" / "by_category.json"),
        anchors_y_definitions=[{"filename": "roc", "field": "tpr"}],
    )  # fmt: skip
    page = HTML((ROOT / ".dvc" / name).read_text(encoding="utf-8"))
    html = page.with_scripts(VegaRenderer.SCRIPTS).with_element(plot.generate_html()).embed()
    (tmp_path / "index.html").write_text(html, encoding="utf-8")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        opened = chromium.new_context(offline=True).new_page()
        asked: list[str] = []
        opened.on("request", lambda request: asked.append(request.url))
        opened.goto((tmp_path / "index.html").as_uri())
        opened.wait_for_selector("canvas, svg.marks", timeout=20_000)
        chromium.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
