"""The order of review, the journal, and what the data set gets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from decodiff_pipeline.app import review
from decodiff_pipeline.app.project import AppProject
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path
    from types import SimpleNamespace


@pytest.fixture
def project(tmp_path: Path, mvtec_tree: Path, make: SimpleNamespace) -> AppProject:
    """A data set with the category bolt, and a log with five kept images."""
    log = tmp_path / "log"
    lines: list[dict[str, Any]] = []
    for number, score in enumerate((0.9, 0.52, 0.2, 0.45, None)):
        name = f"images/{number}.png"
        make.image(log / name, seed=9000 + number)
        lines.append(
            {
                "image_sha256": f"{number}" * 64, "path": name, "category": "bolt",
                "score": score, "threshold": 0.5, "time": f"2026-11-25T0{number}:00",
                "decision": "unknown" if score is None else "good",
            }
        )  # fmt: skip
    lines.append(lines[0] | {"path": None, "image_sha256": "f" * 64})  # was not kept
    lines.append(lines[0])  # served twice
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (log / "2026-11-25.jsonl").write_text(text + '{"image_sha')
    return AppProject(
        root=tmp_path, environment=None, model_name="d", layout="mvtec", raw=mvtec_tree,
        overrides=tmp_path / "o.json", audit_log=tmp_path / "reports" / "audit.jsonl",
        monitoring=tmp_path / "monitoring.json", request_log=log,
    )  # fmt: skip


def served(project: AppProject) -> list[review.ServedImage]:
    assert project.request_log is not None
    unusual = review.unusual_images(project.monitoring)
    return review.served_images(project.request_log, unusual)


def test_unsure_images_come_first(project: AppProject) -> None:
    order = review.sort_images(served(project), unusual_first=False)
    assert [one.score for one in order] == [None, 0.52, 0.45, 0.2, 0.9]
    project.monitoring.write_text(
        json.dumps({"unusual": [{"path": "images/2.png", "deviations": 7.5}]})
    )
    order = review.sort_images(served(project), unusual_first=True)
    assert [one.score for one in order][:3] == [0.2, None, 0.52]


def test_verdicts_go_into_the_data_set_with_who_and_when(project: AppProject) -> None:
    reviews = review.Reviews(project.request_log)
    good, defective, skipped = served(project)[:3]
    mask = np.zeros((40, 48), bool)
    mask[3:9, 3:9] = True
    for one, verdict in ((good, "good"), (defective, "defective"), (skipped, "skip")):
        given = review.make_verdict(one, verdict, "ana", "bolt", "")
        reviews.record(given, mask if verdict == "defective" else None, project)
    assert reviews.add("ana", project) == 2
    added = sorted(project.raw.rglob("reviewed_*"))
    assert {path.parent.relative_to(project.raw).as_posix() for path in added} >= {
        "bolt/ground_truth/scratch", "bolt/test/scratch"
    }  # fmt: skip
    (truth,) = [path for path in added if "ground_truth" in path.parts]
    assert (np.asarray(Image.open(truth)) > 0).sum() == mask.sum()
    line = json.loads(project.audit_log.read_text())
    assert line["reviewed_by"] == "ana"
    assert [(one["verdict"], one["by"]) for one in line["images"]] == [
        ("good", "ana"), ("defective", "ana")
    ]  # fmt: skip
    assert reviews.reviewed() == {good.sha256, defective.sha256, skipped.sha256}
    with pytest.raises(DataError, match="no reviewed image"):
        reviews.add("ana", project)


def test_undo_takes_back_the_last_verdict_of_a_person(project: AppProject) -> None:
    reviews = review.Reviews(project.request_log)
    first, second = served(project)[:2]
    reviews.record(review.make_verdict(first, "good", "ana", "bolt", ""), None, project)
    reviews.record(review.make_verdict(second, "good", "ben", "bolt", ""), None, project)
    assert reviews.undo("ana").sha256 == first.sha256
    assert list(reviews.pending()) == [second.sha256]
    with pytest.raises(DataError, match="nothing to undo"):
        reviews.undo("ana")


def test_what_the_data_set_would_refuse_is_refused_at_once(project: AppProject) -> None:
    reviews = review.Reviews(project.request_log)
    one = served(project)[0]
    with pytest.raises(DataError, match="draw it"):  # its category has masks
        reviews.record(review.make_verdict(one, "defective", "ana", "bolt", ""), None, project)
    with pytest.raises(DataError, match="nail"):
        reviews.record(review.make_verdict(one, "good", "ana", "nail", ""), None, project)
    assert reviews.reviewed() == set()


def test_marks_become_a_mask_in_the_pixels_of_the_image() -> None:
    def drawn(*shapes: Any) -> Any:
        text = json.dumps({"image": "abc", "shapes": shapes})
        return review.rasterise(review.parse_drawing(text)[1], (80, 40))

    expected = np.zeros((40, 80), bool)
    expected[4:10, 2:12] = True
    assert np.array_equal(drawn({"rectangle": [2.2, 3.8, 9.9, 6.4]}), expected)
    assert drawn({"rectangle": [5, 5, 0.1, 0.1]}).sum() == 1
    assert drawn({"rectangle": [-50, -50, 500, 500]}).all()
    stroke = drawn({"stroke": [[20, 20], [60, 20]], "width": 6})
    assert stroke.sum() == pytest.approx(40 * 6 + 28, rel=0.15)
    assert drawn({"stroke": [[20, 20], [20, 20]], "width": 6}).any()  # a click
    assert drawn() is None


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"image": 1}', '{"image": "a", "shapes": 3}', "x" * 2_000_000,
     '{"image": "a", "shapes": [{"rectangle": [1, 2]}]}', '{"image": "a", "shapes": [7]}',
     '{"image": "a", "shapes": [{"rectangle": [NaN, 0, 1, 1]}]}',
     '{"image": "a", "shapes": [{"stroke": [[0, 0], [1e999, 0]], "width": "x"}]}'],
)  # fmt: skip
def test_a_drawing_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="draw it again"):
        review.rasterise(review.parse_drawing(text)[1], (80, 40))
