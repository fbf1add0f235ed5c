"""Connected regions of flagged pixels, in tables and on overlays."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from decodiff_pipeline.deco.detections import Detection, find_detections
from decodiff_pipeline.inference.overlays import BOX, OUTLINE, draw_overlay, encode_overlay
from decodiff_pipeline.inference.results import as_coco

if TYPE_CHECKING:
    from tests.inference.conftest import World


def test_detections_are_connected_regions_in_pixels() -> None:
    anomaly_map = np.zeros((20, 30), np.float32)
    anomaly_map[2:5, 3:9] = 0.5
    anomaly_map[5, 9] = 0.75  # touches by its corner
    anomaly_map[15, 20:22] = 1.0
    anomaly_map[18, 0] = 0.4
    first, second = find_detections(anomaly_map, 0.5)
    assert first == Detection(3, 2, 7, 4, 19, pytest.approx((18 * 0.5 + 0.75) / 19, abs=1e-6))
    assert second == Detection(20, 15, 2, 1, 2, 1.0)
    assert find_detections(anomaly_map, 0.5, min_area=3) == [first]
    assert find_detections(anomaly_map, 1.1) == []


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "crop", "tile"])
def test_detections_in_the_tables_are_those_of_the_map(
    world: World, scored: list[Any], fit: str
) -> None:
    index = world.model / "model_index.json"
    saved = json.loads(index.read_text())
    geometry = {"resize": 32, "image_size": 32, "fit": fit}
    index.write_text(json.dumps(saved | {"preprocess": geometry}))
    world.config |= {"maps": "tiff", "pixel_thresholds": {"mono": 0.02}}
    results = world.run()
    mono, poly = results.iloc[:4], results.iloc[4:]
    assert poly["detections"].isna().all()
    for row in mono.itertuples():
        anomaly_map = np.asarray(Image.open(world.output / row.map))
        found = json.loads(row.detections)
        assert sum(one["area"] for one in found) == row.flagged_pixels
        expected = [one._asdict() for one in find_detections(anomaly_map, 0.02)]
        assert found == expected
    coco = json.loads(json.dumps(as_coco(results)))
    assert [one["name"] for one in coco["categories"]] == ["mono", "poly"]
    assert [one["file_name"] for one in coco["images"]] == results["path"].tolist()
    assert sum(one["area"] for one in coco["annotations"]) == mono["flagged_pixels"].sum()

    scored.clear()
    largest = max(one["area"] for one in coco["annotations"])
    fewer = world.run(min_area=largest)
    assert len(scored) == 6
    assert max(map(len, map(json.loads, fewer["detections"].iloc[:4]))) == 1


def test_an_overlay_marks_what_is_flagged_and_hides_none_of_it() -> None:
    image = Image.new("L", (300, 200), 100)
    anomaly_map = np.zeros((200, 300), np.float32)
    anomaly_map[50:60, 80:100] = 0.5
    overlay = np.asarray(draw_overlay(image, anomaly_map, 0.5))
    line = (overlay == OUTLINE).all(-1)
    assert line[49, 80:100].all()
    assert line[50:60, 100].all()
    assert not line[50:60, 80:100].any()
    assert (overlay[:40] == 100).all()  # where nothing is anomalous the image shows as it is
    assert (overlay[55, 90] != 100).any()
    assert not (np.asarray(draw_overlay(image, anomaly_map, None)) == OUTLINE).all(-1).any()
    boxed = draw_overlay(image, anomaly_map, 0.5, find_detections(anomaly_map, 0.5))
    ys, xs = np.nonzero((np.asarray(boxed) == BOX).all(-1))
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (48, 61, 78, 101)


def test_an_overlay_longer_than_jpeg_allows_is_reduced() -> None:
    with Image.open(io.BytesIO(encode_overlay(Image.new("RGB", (70_000, 40))))) as overlay:
        assert overlay.format == "JPEG"
