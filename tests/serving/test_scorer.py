"""Answers of a saved pipeline, without MLflow."""

from __future__ import annotations

import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
from decodiff_pipeline.deco.regions import Region
from decodiff_pipeline.errors import ConfigurationError, ImageError, ModelError
from decodiff_pipeline.serving.answer import encode_map
from decodiff_pipeline.serving.scorer import Scorer
from decodiff_pipeline.serving.thresholds import read_overrides

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def scorer(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    torch.set_num_threads(1)
    thresholds = tmp_path_factory.mktemp("thresholds") / "thresholds.json"
    thresholds.write_text(json.dumps({"categories": {"mono": {"threshold": 0.0}}}))
    return Scorer.from_folder(tiny_model, thresholds, max_images=3, max_pixels=10_000)


def test_scores_are_those_of_the_pipeline(scorer: Scorer, tiny_model: Path, png: bytes) -> None:
    image = Image.open(io.BytesIO(png))
    pipeline = DeCoDiffPipeline.from_pretrained(tiny_model)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline([image, image], ["mono", "poly"])

    mono, poly = scorer.score([png, png], ["mono", "poly"])
    assert [mono.score, poly.score] == pytest.approx(expected.scores.tolist(), abs=1e-6)
    assert (mono.threshold, mono.threshold_from, mono.decision) == (0.0, "fitted", "defective")
    assert (poly.threshold, poly.threshold_from, poly.decision) == (None, None, None)


def test_the_map_has_the_size_of_the_image(scorer: Scorer, png: bytes) -> None:
    (answer,) = scorer.score([png], ["mono"], map_bits=16)
    assert answer.map is not None
    grey = Image.open(io.BytesIO(answer.map))
    assert (grey.format, grey.mode, grey.size) == ("PNG", "I;16", (60, 50))
    # The pipeline crops 4 of 40 pixels off each side: that margin was not looked at.
    assert not np.asarray(grey)[:2].any()
    assert np.asarray(grey)[25].any()


def test_a_threshold_by_costs_says_what_it_is_fitted_on(tiny_model: Path, png: bytes) -> None:
    entry = {"threshold": 0.5, "fitted_on": "labels"}
    scorer = Scorer(DeCoDiffPipeline.from_pretrained(tiny_model), {"categories": {"mono": entry}})
    (answer,) = scorer.score([png], ["mono"], map_bits=0)
    assert answer.threshold_from == "fitted on labels"


def test_detections_need_no_map(tiny_model: Path, png: bytes) -> None:
    pipeline = DeCoDiffPipeline.from_pretrained(tiny_model)
    limit = float(np.asarray(pipeline(Image.open(io.BytesIO(png)), "mono").anomaly_maps).max()) / 2
    scorer = Scorer(
        pipeline,
        {"categories": {"mono": {"pixel_threshold": limit}, "poly": {"pixel_threshold": 1.0}}},
    )
    (mono,) = scorer.score([png], ["mono"])
    (without_map,) = scorer.score([png], ["mono"], map_bits=0)
    assert mono.detections
    assert without_map.map is None
    assert without_map.detections == mono.detections
    assert mono.detections[0].mean_score >= limit
    (fewer,) = scorer.score([png], ["mono"], min_area=mono.detections[0].area + 1)
    assert fewer.detections == []
    (poly,) = scorer.score([png], ["poly"], map_bits=0)
    assert (poly.pixel_threshold, poly.detections) == (1.0, [])


def test_an_answer_shows_nothing_outside_of_a_region(tiny_model: Path, png: bytes) -> None:
    inside = np.zeros((50, 60), bool)
    inside[10:40, 10:30] = True
    pipeline = DeCoDiffPipeline.from_pretrained(tiny_model)
    pipeline.register_to_config(regions={"mono": asdict(Region.of(inside))})
    limits = {"threshold": 0.5, "pixel_threshold": 1e-6}
    scorer = Scorer(pipeline, {"categories": {"mono": limits}})
    (answer,) = scorer.score([png], ["mono"], map_bits=16)
    shown = np.asarray(Image.open(io.BytesIO(answer.map))) > 0
    assert shown.any()
    assert not shown[~inside].any()
    (box,) = answer.detections
    assert (box.x, box.y, box.x + box.width, box.y + box.height) == (10, 10, 30, 40)


@pytest.mark.parametrize(
    ("categories", "options", "message"),
    [
        (["mono", "wood"], {}, r"image 1 has the unknown category 'wood'.*mono, poly"),
        (["mono"] * 4, {}, "holds 4 images; send 1 to 3"),
        ([], {}, "holds 0 images"),
        (["mono"], {"map_bits": 4}, "map_bits is 4"),
        (["mono"], {"min_area": 0}, "min_area is 0; it must be at least 1 pixel"),
        (["mono"], {"threshold": 1.5}, "threshold is 1.5; it must lie within 0…1"),
        (["mono"], {"threshold": float("nan")}, "threshold is nan; it must lie within 0…1"),
    ],
)
def test_an_invalid_request(
    scorer: Scorer, png: bytes, categories: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        scorer.score([png] * len(categories), categories, **options)


def test_an_unreadable_image(scorer: Scorer, png: bytes, make, tmp_path: Path) -> None:
    large = make.image(tmp_path / "large.png", seed=1, size=(200, 60)).read_bytes()
    for data, message in ((png[:-40], "is damaged"), (b"text", ""), (large, "200x60 pixels")):
        with pytest.raises(ImageError, match=f"image 1.*{message}"):
            scorer.score([png, data], ["mono", "mono"])


def test_thresholds_of_an_operator_and_of_a_request(
    tiny_model: Path, tmp_path: Path, png: bytes
) -> None:
    fitted, overrides = tmp_path / "thresholds.json", tmp_path / "overrides.json"
    fitted.write_text(json.dumps({"categories": {c: {"threshold": 0.0} for c in ("mono", "poly")}}))
    overrides.write_text('{"mono": 1}')
    scorer = Scorer.from_folder(tiny_model, fitted, overrides=overrides)
    mono, poly = scorer.score([png, png], ["mono", "poly"], map_bits=0)
    assert (mono.threshold, mono.threshold_from, mono.decision) == (1, "override", "good")
    assert (poly.threshold, poly.threshold_from, poly.decision) == (0.0, "fitted", "defective")
    for answer in scorer.score([png, png], ["mono", "poly"], map_bits=0, threshold=0.0):
        assert (answer.threshold, answer.threshold_from) == (0.0, "request")
        assert answer.decision == "defective"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"wood": 0.4}', "overrides.json has the unknown category 'wood'; .* mono, poly"),
        ('{"mono": 40}', "overrides.json has 40 for 'mono'; a threshold must be within 0…1"),
        ('{"mono": "0.4"}', "overrides.json has '0.4' for 'mono'"),
        ('{"mono": true}', "overrides.json has True for 'mono'"),
        ('{"mono": NaN}', "overrides.json has nan for 'mono'"),
        ("[0.4]", "overrides.json is not a JSON object"),
        ("{", "overrides.json cannot be read"),
    ],
)
def test_wrong_overrides_stop_the_server_at_its_start(
    tmp_path: Path, content: str, sentence: str
) -> None:
    path = tmp_path / "overrides.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=sentence):
        read_overrides(path, ("mono", "poly"))


@pytest.mark.parametrize(("bits", "most"), [(8, 255), (16, 65535)])
def test_scale_of_an_encoded_map(bits: int, most: int) -> None:
    values = np.array([[0.0, 0.5, 1.0]], np.float32)
    grey = np.asarray(Image.open(io.BytesIO(encode_map(values, bits))))
    assert grey.tolist() == [[0, round(most / 2), most]]


def test_requests_of_many_threads_are_computed_together_and_answered_each(
    scorer: Scorer, make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [make.image(tmp_path / f"{i}.png", seed=i).read_bytes() for i in range(12)]
    categories = ["mono", "poly"] * 6
    expected = [
        scorer.score([data], [name])[0] for data, name in zip(files, categories, strict=True)
    ]
    calls = []
    compute = type(scorer.pipeline).discrepancies

    def slowly(pipeline: DeCoDiffPipeline, images: torch.Tensor, *rest: object) -> object:
        calls.append(len(images))
        time.sleep(0.05)  # the others ask meanwhile
        return compute(pipeline, images, *rest)

    monkeypatch.setattr(type(scorer.pipeline), "discrepancies", slowly)
    with ThreadPoolExecutor(12) as pool:
        found = list(
            pool.map(lambda data, name: scorer.score([data], [name])[0], files, categories)
        )
    assert [one.score for one in found] == pytest.approx([one.score for one in expected], abs=2e-4)
    assert sum(calls) == 12
    assert max(calls) > 1

    def broken(*_: object) -> object:
        raise RuntimeError("no memory")

    monkeypatch.setattr(type(scorer.pipeline), "discrepancies", broken)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(scorer.score, [files[0]], ["mono"]) for _ in range(4)]
    assert [str(one.exception()) for one in asked] == ["no memory"] * 4
