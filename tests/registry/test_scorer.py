"""Answers of a saved pipeline, without MLflow."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
from decodiff_pipeline.errors import ImageError, ModelError
from decodiff_pipeline.registry.scorer import Scorer, encode_map, map_on_image, threshold_of

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
    assert (mono.threshold, mono.decision) == (0.0, "defective")
    assert (poly.threshold, poly.decision) == (None, None)


def test_the_map_has_the_size_of_the_image(scorer: Scorer, png: bytes) -> None:
    (answer,) = scorer.score([png], ["mono"], map_bits=16)
    assert answer.map is not None
    grey = Image.open(io.BytesIO(answer.map))
    assert (grey.format, grey.mode, grey.size) == ("PNG", "I;16", (60, 50))
    # The pipeline crops 4 of 40 pixels off each side: that margin was not looked at.
    assert not np.asarray(grey)[:2].any()
    assert np.asarray(grey)[25].any()


def test_no_map_where_none_is_asked_for(scorer: Scorer, png: bytes) -> None:
    (answer,) = scorer.score([png], ["mono"], map_bits=0)
    assert answer.map is None


def test_bad_requests_are_one_sentence(scorer: Scorer, png: bytes) -> None:
    with pytest.raises(ModelError, match=r"image 1 has the unknown category 'wood'.*mono, poly"):
        scorer.score([png, png], ["mono", "wood"])
    with pytest.raises(ModelError, match="holds 4 images; send 1 to 3"):
        scorer.score([png] * 4, ["mono"] * 4)
    with pytest.raises(ModelError, match="holds 0 images"):
        scorer.score([], [])
    with pytest.raises(ModelError, match="map_bits is 4"):
        scorer.score([png], ["mono"], map_bits=4)
    with pytest.raises(ImageError, match="image 1 is damaged"):
        scorer.score([png, png[:-40]], ["mono", "mono"])
    with pytest.raises(ImageError, match="image 0"):
        scorer.score([b"text"], ["mono"])


def test_an_image_too_large_is_refused_before_it_is_decoded(scorer: Scorer, make, tmp_path) -> None:
    large = make.image(tmp_path / "large.png", seed=1, size=(200, 60)).read_bytes()
    with pytest.raises(ImageError, match="200x60 pixels"):
        scorer.score([large], ["mono"])


def test_a_map_lands_where_its_defect_is() -> None:
    square = np.zeros((32, 32), np.float32)
    square[24:28, 4:8] = 1.0  # in the 40² before the crop: rows 28-32, columns 8-12
    full = map_on_image(square, (120, 80), PreprocessConfig(resize=64, image_size=32))
    rows, columns = np.nonzero(full > 0.5)
    # (16 + 24…28) / 64 of 80 rows, (16 + 4…8) / 64 of 120 columns
    assert rows.mean() == pytest.approx((16 + 26) / 64 * 80 - 0.5, abs=1)
    assert columns.mean() == pytest.approx((16 + 6) / 64 * 120 - 0.5, abs=1)


@pytest.mark.parametrize(("bits", "most"), [(8, 255), (16, 65535)])
def test_scale_of_an_encoded_map(bits: int, most: int) -> None:
    values = np.array([[0.0, 0.5, 1.0]], np.float32)
    grey = np.asarray(Image.open(io.BytesIO(encode_map(values, bits))))
    assert grey.tolist() == [[0, round(most / 2), most]]


def test_thresholds_of_the_evaluation() -> None:
    thresholds = {"categories": {"mono": {"threshold": 0.25}, "poly": {"threshold": None}}}
    assert threshold_of(thresholds, "mono") == 0.25
    assert threshold_of(thresholds, "poly") is None
    assert threshold_of(thresholds, "other") is None
