"""The report in a real browser, without a window."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest
from tests.evaluation.conftest import World

from decodiff_pipeline.evaluation.assessment import assess
from decodiff_pipeline.evaluation.thresholds import fit_thresholds
from decodiff_pipeline.reporting.report import ReportInput, render_report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
OPTIONS += ["--disable-background-networking"]
NASTY = '"><img src=x onerror=alert(1)><script>alert(1)</script>'
SCRIPT = "</script><script>alert(2)</script>"

LABELS_OVER_BARS = """() => {
  let over = 0;
  for (const figure of document.querySelectorAll(".histogram")) {
    const boxes = (selector) =>
      [...figure.querySelectorAll(selector)].map((part) => part.getBoundingClientRect());
    for (const text of boxes("g text"))
      for (const bars of boxes(".bars"))
        over += text.bottom > bars.top && text.top < bars.bottom;
  }
  return over;
}"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of three categories, one of them with a name that wants to be code."""
    root = tmp_path_factory.mktemp("report")
    world = World(root)
    world.model.categories = ("plate", "bolt", NASTY)
    for name, count in (("plate", 4), ("bolt", 2), (NASTY, 1)):
        world.add(name, "calibration", "good", 2).add(name, "test", "good", count)
        world.add(name, "test", "defective", 2, mask=True)
    train = {"path": "c0/test/good/002.png", "score": 0.9, "p_value": 0.01, "reason_hint": SCRIPT}
    change = {"difference": 0.1, "low": 0.05, "high": 0.2, "verdict": "better"}
    store = world.scored()
    thresholds = fit_thresholds(store, 0.05)
    thresholds["categories"]["plate"]["threshold"] = 2.0  # nothing is found
    metrics = assess(
        store, world.manifest, world.images, thresholds, world.config, baseline={"pca": {}}
    ).metrics
    metrics["categories"]["plate"]["image_auroc"] = 0.5
    metrics["categories"]["plate"]["intervals"] = {"image_auroc": [0.4, 0.6]}
    metrics["categories"]["bolt"]["defect_types"] = {NASTY: {"n": 2, "image_auroc": 1.0}}
    index = store.index()
    hostile = index["category"] == NASTY
    index.loc[hostile & (index["label"] == "defective"), "defect_type"] = SCRIPT
    curve = {"fpr": [0, 0, 1], "tpr": [0, 1, 1]}
    given = ReportInput(
        metrics, thresholds, index, store, world.images,
        curves={"bolt": {"image_roc": curve, "pixel_roc": curve}},
        identity={"model": {"name": SCRIPT, "version": 3}, "git": {"commit": NASTY, "dirty": True},
                  "data": "0123456789abcdef" * 4, "registered_version": "decodiff version 3"},
        training_review={NASTY: [train], "bolt": [train | {"path": f"{SCRIPT}.png"}]},
        comparison={
            "reference": NASTY, "outcome": "compared", "notes": [SCRIPT], "mean": {},
            "categories": {NASTY: {"metrics": {"image_auroc": change}}},
        },
    )  # fmt: skip
    path = root / "report.html"
    path.write_text(render_report(given), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium on the path: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield chromium
        chromium.close()


class Visit:
    """The opened report, and all that went wrong on it."""

    def __init__(self, browser: Any, report: Path, **options: Any) -> None:
        options = {"viewport": {"width": 1280, "height": 900}} | options
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: self.wrong.append(dialog.message))
        self.page.on("request", self._requested)
        self.address = report.as_uri()
        self.page.goto(self.address)

    def _requested(self, request: Any) -> None:
        if not request.url.startswith(("data:", self.address)):
            self.wrong.append(request.url)

    def texts(self, selector: str) -> list[str]:
        """Of the elements that can be seen."""
        found = self.page.locator(selector).filter(visible=True)
        return [text.strip() for text in found.all_text_contents()]


@pytest.fixture
def visit(browser: Any, report: Path) -> Iterator[Visit]:
    opened = Visit(browser, report)
    yield opened
    opened.context.close()
    assert opened.wrong == []


def test_a_category_and_a_verdict_are_chosen(visit: Visit) -> None:
    page = visit.page
    assert len(visit.texts(".card")) == 13
    page.select_option("#category", "plate")
    assert visit.texts("#categories h3") == ["plate"]
    assert visit.texts("#table tbody a") == ["plate"]
    assert len(visit.texts(".card")) == 6
    assert visit.texts("#shown") == ["6 of 13 images shown"]
    page.uncheck("#verdicts input[value=passed]")
    assert visit.texts(".badge") == ["missed", "missed"]
    page.select_option("#category", NASTY)
    assert visit.texts("#categories h3") == [NASTY]
    page.select_option("#category", "")
    page.check("#verdicts input[value=passed]")
    assert len(visit.texts(".card")) == 13


def test_table_and_gallery_are_sorted_by_keyboard_too(visit: Visit) -> None:
    page = visit.page
    badges = visit.texts(".badge")
    assert set(badges[:3]) == {"missed", "false alarm"}
    assert set(badges[-3:]) <= {"detected", "passed"}
    header = page.locator("#table th", has_text="I-AUROC")
    page.focus("#table th:nth-child(2) button")
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    assert visit.texts("#table tbody a")[-1] == "plate"
    page.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "ascending"
    assert visit.texts("#table tbody a")[0] == "plate"
    assert visit.texts("#table tfoot th") == ["mean"]
    for order, reverse in (("highest", True), ("lowest", False)):
        page.select_option("#order", order)
        scores = page.eval_on_selector_all(".card", "cards => cards.map(c => +c.dataset.score)")
        assert scores == sorted(scores, reverse=reverse)


def test_the_slider_blends_the_heat_map_of_its_image_alone(visit: Visit) -> None:
    page = visit.page

    def opacity(card: int) -> float:
        return float(
            page.locator(".heat").nth(card).evaluate("image => getComputedStyle(image).opacity")
        )

    before = opacity(1)
    slider = page.locator(".blend input").first
    slider.fill("20")
    assert opacity(0) == pytest.approx(0.2)
    assert opacity(1) == before
    slider.press("ArrowRight")
    assert opacity(0) == pytest.approx(0.25)
    page.locator("#every").fill("0")
    assert opacity(0) == opacity(1) == 0
    page.uncheck("#outlines")
    assert not page.locator(".truth").first.is_visible()
    loaded = "images => images.every(i => i.complete && i.naturalWidth > 0)"
    page.locator(".card").first.scroll_into_view_if_needed()
    assert page.eval_on_selector_all(".card:first-child img", loaded)


def test_names_that_want_to_be_code_are_text(visit: Visit) -> None:
    assert "evaluation of decodiff version 3, 20" in visit.page.title()
    digest = visit.page.locator("dd code", has_text="0123456789ab…")
    assert digest.get_attribute("title") == "0123456789abcdef" * 4
    body = visit.page.inner_text("body")
    assert body.count(NASTY) > 3
    assert body.count(SCRIPT) > 3
    assert visit.page.locator("script").count() == 1
    assert visit.page.locator('img[src="x"]').count() == 0


def test_a_phone_scrolls_down_only(browser: Any, report: Path) -> None:
    phone = Visit(browser, report, viewport={"width": 375, "height": 800})
    assert phone.page.evaluate("document.documentElement.scrollWidth") == 375
    card = phone.page.locator(".card").first.bounding_box()
    assert card["width"] > 300
    gallery = phone.page.locator("#cards").bounding_box()
    assert gallery["height"] < 800  # it scrolls by itself
    assert phone.page.evaluate(LABELS_OVER_BARS) == 0
    assert phone.wrong == []
    phone.context.close()


def test_all_is_readable_without_script_and_on_paper(browser: Any, report: Path) -> None:
    plain = Visit(browser, report, java_script_enabled=False)
    for media in ("screen", "print"):
        plain.page.emulate_media(media=media)
        assert plain.page.locator(".card").filter(visible=True).count() == 13
        assert plain.page.locator("#categories h3").filter(visible=True).count() == 3
        assert not plain.page.locator(".blend").first.is_visible()
    plain.context.close()
    paper = Visit(browser, report)
    paper.page.emulate_media(media="print")
    assert not paper.page.locator("nav").is_visible()
    assert not paper.page.locator(".blend").first.is_visible()
    assert paper.page.pdf()[:4] == b"%PDF"
    assert paper.wrong == []
    paper.context.close()
