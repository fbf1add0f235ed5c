"""The page in a real browser, on a model that was trained in the test."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from PIL import Image
from tests.servers import free_port
from tests.test_end_to_end import PARAMETERS, kedro, new_project

from decodiff_pipeline.serving.request_log import RequestLog
from decodiff_pipeline.serving.scorer import Scorer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import SimpleNamespace

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
OPTIONS += ["--disable-background-networking"]
OPTIONS += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]  # a camera
MINUTES = 60_000  # milliseconds
TOKEN = "a token of the test"  # noqa: S105
REPORTS = "data/08_reporting/bolts"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("gradio") is None, reason="gradio: pip install -e '.[app]'"
    ),
    pytest.mark.skipif(
        CHROMIUM is None, reason="no chromium on the path: apt-get install chromium"
    ),
]


@dataclass(frozen=True)
class Line:
    """A project with a version, its request log, and a page on both."""

    project: Path
    address: str

    @property
    def raw(self) -> Path:
        return self.project / "data/01_raw/bolts"

    def audit(self) -> list[dict[str, Any]]:
        lines = (self.project / REPORTS / "promotion_log.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory, make: SimpleNamespace) -> Iterator[Line]:
    project = new_project(tmp_path_factory.mktemp("project"))
    make.category(project / "data/01_raw/bolts", "bolt", train=40)
    quick = {"evaluation": {"resamples": 100, "review_images": 0}}
    (project / "conf/bolts/parameters.yml").write_text(yaml.safe_dump(PARAMETERS | quick))
    ran = kedro(project, "run", "--env", "bolts")
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    model = project / "data/06_models/bolts"
    scorer = Scorer.from_folder(model / "pipeline", model / "thresholds.json")
    log = RequestLog(project / "log", {}, images="all")
    for number in range(4):
        image = make.image(project / "new" / f"{number}.png", seed=7000 + number).read_bytes()
        log.write("request", [image], ["bolt"], scorer.score([image], ["bolt"]), 1.0)
    port = free_port()
    with (project / "app.log").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "decodiff_pipeline.app.server", "--env", "bolts",
             "--port", str(port), "--request-log", "log", "--token", TOKEN],
            cwd=project, stdout=output, stderr=output,
            env={k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")},
        )  # fmt: skip
        deadline = time.monotonic() + 180
        while "http" not in (project / "app.log").read_text():
            assert process.poll() is None, (project / "app.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield Line(project, f"http://127.0.0.1:{port}")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.fixture(scope="module")
def page(line: Line) -> Iterator[Any]:
    """The page, signed in; it asks for nothing elsewhere, and nothing on it fails."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    wrong: list[str] = []

    def asked(request: Any) -> None:
        if not request.url.startswith((line.address, "data:", "blob:")):
            wrong.append(request.url)

    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        opened = chromium.new_page(viewport={"width": 1280, "height": 900})
        opened.set_default_timeout(3 * MINUTES)
        opened.on("request", asked)
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        opened.goto(line.address)
        opened.get_by_label("username").fill("ana")
        opened.get_by_label("password").fill(TOKEN)
        opened.get_by_role("button", name="Login").click()
        opened.wait_for_selector("#drop")
        yield opened
        chromium.close()
    assert wrong == []


def status(address: str) -> int:
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310 - loopback
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_nothing_is_answered_without_the_token(line: Line) -> None:
    assert status(f"{line.address}/config") == 401
    for path in ("/etc/passwd", line.project / "conf/base/catalog.yml"):
        assert status(f"{line.address}/gradio_api/file={path}") in (401, 403)


def drop(page: Any, path: Path) -> None:
    """Drop a file or folder onto the page, as a person does."""
    session = page.context.new_cdp_session(page)
    area = page.locator("#drop").bounding_box()
    data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, "x": area["x"] + 9, "y": area["y"] + 9, "data": data}
        session.send("Input.dispatchDragEvent", event)


def test_images_are_inspected_and_a_threshold_is_set(line: Line, page: Any) -> None:
    folder = line.project / "dropped"
    shutil.copytree(line.raw / "bolt/test/scratch", folder / "scratch")
    names = sorted(path.name for path in (folder / "scratch").iterdir())
    data = (folder / "scratch" / names[0]).read_bytes()
    (folder / "damaged.png").write_bytes(data[:-30])
    (folder / "empty.png").touch()
    (folder / ".hidden.png").write_bytes(data)
    (folder / "notes.txt").write_text("no image")
    drop(page, folder / "notes.txt")
    page.get_by_text("There is no PNG").wait_for()
    drop(page, folder)
    page.wait_for_selector("#images label >> nth=4")
    listed = page.locator("#images label").all_text_contents()
    assert "damaged.png: " in listed[0]
    assert "empty.png: " in listed[1]
    assert f"scratch_{names[0]}: " in listed[2]
    page.locator("#images label").nth(2).click()
    page.get_by_label("Category of the images").click()
    page.get_by_role("option", name="bolt").click()
    page.locator("#images label", has_text="(threshold").nth(2).wait_for()  # scored again
    page.wait_for_selector("#counts table")
    page.wait_for_selector("#view .layers .heat")
    page.locator("#view-heat input[type=range]").focus()
    page.keyboard.press("Home")  # by keyboard: no heat
    assert page.locator("#view .heat").evaluate("e => getComputedStyle(e).opacity") == "0"
    box = page.locator("#threshold input[type=number]")
    box.fill("0.001")
    box.press("Enter")
    page.locator("#counts", has_text="3 of 3").wait_for()
    assert "0 of 3 (0.0%)" in page.locator("#counts").text_content()  # no misses
    page.locator("#save").click()
    page.get_by_text("the reason is missing").first.wait_for()
    page.locator("#reason textarea, #reason input").fill("a trial")
    page.locator("#save").click()
    page.locator("#details", has_text="override").wait_for()
    saved = json.loads((line.project / "data/06_models/bolts/threshold_overrides.json").read_text())
    assert (saved["bolt"]["by"], saved["bolt"]["reason"]) == ("ana", "a trial")
    assert line.audit()[-1]["action"] == "threshold"
    assert str(line.project) not in page.content()
    page.get_by_text("Camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('#camera video')?.videoWidth > 0")
    page.get_by_label("capture photo").click()
    page.locator("#images label", has_text="camera: ").wait_for()


def test_served_images_are_reviewed_by_keys_and_a_mask_is_drawn(line: Line, page: Any) -> None:
    def left(count: int) -> None:
        page.locator("#about", has_text=f"{count} to review").wait_for()

    page.get_by_role("tab", name="Review").click()
    left(4)
    page.keyboard.press("d")
    page.get_by_text("draw it").first.wait_for()  # the category has masks
    area = page.locator("#review-view svg").bounding_box()

    def drag(*corners: tuple[float, float]) -> None:
        for share, then in zip(corners, (page.mouse.down, page.mouse.up), strict=True):
            x, y = (area[key] + area[side] * part for key, side, part in zip(
                "xy", ("width", "height"), share, strict=True))  # fmt: skip
            page.mouse.move(x, y, steps=4)
            then()

    drag((0.25, 0.25), (0.5, 0.75))  # a rectangle
    page.keyboard.press("b")
    drag((0.7, 0.2), (0.8, 0.2))  # a stroke
    page.keyboard.press("c")  # is taken back
    page.keyboard.press("d")
    left(3)
    page.keyboard.press("g")
    left(2)
    page.keyboard.press("u")
    left(3)
    page.keyboard.press("g")
    left(2)
    page.keyboard.press("s")
    left(1)
    page.locator("#add").click()
    page.get_by_text("2 images are in the data set").first.wait_for()
    added = [path.parent.name for path in line.raw.rglob("reviewed_*")]
    assert sorted(added) == ["good", "scratch", "scratch"]  # a good one, a defect, its mask
    (mask,) = (line.raw / "bolt/ground_truth").rglob("reviewed_*")
    drawn = np.asarray(Image.open(mask)) > 0
    rows, columns = np.nonzero(drawn)
    height, width = drawn.shape
    assert abs(len(rows) - height * width / 8) <= height + width
    assert abs(columns.min() - width / 4) <= 1
    assert abs(rows.max() - 0.75 * height) <= 1
    assert line.audit()[-1]["reviewed_by"] == "ana"


def test_a_retraining_is_watched_and_versions_are_compared_and_moved(line: Line, page: Any) -> None:
    def done(name: str) -> None:
        page.locator("#state", has_text=f"{name} is done").wait_for(timeout=10 * MINUTES)

    page.get_by_role("tab", name="Runs").click()
    page.locator("#versions", has_text="not judged yet").wait_for()
    page.get_by_label("Promote although gates fail").check()
    page.locator("#why textarea, #why input").fill('the first one, of "three"')
    page.locator("#promote").click()
    done("promotion")
    assert line.audit()[-1]["outcome"] in ("promoted", "overridden")
    assert line.audit()[-1]["by"]["user"] == "ana"
    page.locator("#heading", has_text="version 1, champion").wait_for()

    page.locator("#retrain").click()
    done("retrain")
    assert "Completed" in page.locator("#log textarea").input_value()
    page.locator("#versions", has_text="2 challenger").wait_for()
    page.locator("#compare").click()
    page.wait_for_selector("#pairs .pair .layers")
    assert "decided differently" in page.locator("#pairs").text_content()

    page.locator("#promote").click()  # the reason is still there, and so is the override
    done("promotion")
    page.locator("#roll-back").click()
    done("rollback")
    assert line.audit()[-1]["outcome"] == "rolled back"
    assert str(line.project) not in page.content()


def test_the_page_fits_a_telephone(line: Line, page: Any) -> None:
    for width in (1280, 400):
        page.set_viewport_size({"width": width, "height": 800})
        for name in ("Inspect", "Review", "Runs"):
            page.get_by_role("tab", name=name).click()
            page.wait_for_timeout(500)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.screenshot(path=line.project / f"{name}_{width}.png", full_page=True)
