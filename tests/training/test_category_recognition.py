"""The category of an image is recognised, or that it is of none: by pipeline, scorer, inference."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.models import small_pipeline

from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
from decodiff_pipeline.deco.recognition import recognise, whole_square
from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.inference.config import InferenceConfig
from decodiff_pipeline.inference.results import as_coco
from decodiff_pipeline.inference.run import infer
from decodiff_pipeline.inference.source import InferenceSource
from decodiff_pipeline.inference.store import InferenceStore
from decodiff_pipeline.serving.scorer import Scorer
from decodiff_pipeline.training.category_recognition import fit_recognition

if TYPE_CHECKING:
    from pathlib import Path

THRESHOLDS = {
    "categories": {name: {"threshold": 0.5, "pixel_threshold": 0.5} for name in ("mono", "poly")}
}


def picture(category: str, seed: int) -> Image.Image:
    """A smooth, a rough, or, of any other category, a checked picture."""
    random = np.random.default_rng(seed)
    noise = random.normal(0, 1, (48, 64))
    ramp = np.linspace(0, 1, 64)[None].repeat(48, 0)
    values = {
        "mono": 90 + 60 * ramp + 8 * noise,
        "poly": 140 + 40 * noise,
    }.get(category, 255.0 * (np.indices((48, 64)).sum(0) // 4 % 2) + noise)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in ``model``, and images of two known categories and of a foreign one in ``new``."""
    root = tmp_path_factory.mktemp("recognition")
    rows = []
    for category in ("mono", "poly"):
        for number in range(40):
            path = f"{category}/{number}.png"
            (root / "raw" / category).mkdir(parents=True, exist_ok=True)
            picture(category, number).save(root / "raw" / path)
            split = "calibration" if number % 2 else "train"
            rows.append({"path": path, "category": category, "split": split, "label": "good"})
    model = small_pipeline(("mono", "poly"))
    fit_recognition(model, pd.DataFrame(rows), ImageFolder(root / "raw"), 0.05)
    model.save_pretrained(root / "model")
    (root / "new").mkdir()
    for category in ("mono", "poly", "tile"):
        for number in range(2):
            picture(category, 100 + number).save(root / "new" / f"{category}{number}.png")
    return root


def test_a_saved_model_recognises_its_categories_and_refuses_others(world: Path) -> None:
    model = DeCoDiffPipeline.from_pretrained(world / "model")
    for name, expected in (("mono", "mono"), ("poly", "poly"), ("tile", None)):
        pictures = [picture(name, 200 + number) for number in range(20)]
        squares = [whole_square(one, model.preprocessing) for one in pictures]
        found = recognise(model, squares)
        right = [one for one in found if one.category == expected]
        assert len(right) >= 16
        assert all(0 < one.certainty <= 1 for one in found)
        # Whatever else is computed with it.
        assert recognise(model, squares[:1])[0].certainty == pytest.approx(
            found[0].certainty, abs=1e-4
        )


def test_an_image_is_recognised_whole_whatever_the_fit() -> None:
    image = picture("mono", 0)
    squares = [
        whole_square(image, PreprocessConfig(resize, 32, fit))
        for fit, resize in (("stretch", 32), ("letterbox", 32), ("crop", 64), ("tile", 48))
    ]
    assert all(np.array_equal(squares[0], other) for other in squares)


def test_a_request_without_category(world: Path) -> None:
    scorer = Scorer(DeCoDiffPipeline.from_pretrained(world / "model"), THRESHOLDS)
    files = [(world / "new" / f"{name}.png").read_bytes() for name in ("poly0", "tile0", "mono0")]
    poly, tile, mono = scorer.score(files, ["auto", "auto", "mono"])
    named, _ = scorer.score([files[0], files[2]], ["poly", "mono"])
    assert (poly.category, poly.score) == ("poly", pytest.approx(named.score, abs=1e-6))
    assert poly.category_certainty is not None
    assert (mono.category, mono.category_certainty) == ("mono", None)
    assert (tile.category, tile.decision) == ("unknown", "unknown")
    assert (tile.score, tile.threshold, tile.map, tile.detections) == (None, None, None, None)
    (alone,) = scorer.score([files[1]], ["auto"])
    assert alone.decision == "unknown"


def test_a_folder_without_categories(world: Path, tmp_path: Path) -> None:
    def run(**config: Any) -> pd.DataFrame:
        return infer(
            InferenceSource(world / "new"),
            world / "model",
            world / "onnx",
            THRESHOLDS,
            InferenceStore(tmp_path / "results"),
            InferenceConfig(batch_size=4, **config),
        )

    results = run(category="auto")
    assert results["category"].tolist() == ["mono"] * 2 + ["poly"] * 2 + ["unknown"] * 2
    assert results["decision"].tolist()[4:] == ["unknown"] * 2
    assert results["category_certainty"].notna().all()
    assert results["error"].isna().all()
    nothing = ["score", "threshold", "map", "overlay", "detections", "flagged_pixels"]
    assert results.iloc[4:][nothing].isna().all(None)
    assert len(as_coco(results)["images"]) == 4

    journal = (tmp_path / "results" / "journal.jsonl").read_text()
    pd.testing.assert_frame_equal(run(category="auto"), results)
    assert (tmp_path / "results" / "journal.jsonl").read_text() == journal
    named = run(category="mono")
    assert set(named["category"]) == {"mono"}
    assert named["category_certainty"].isna().all()
    pd.testing.assert_frame_equal(run(category="auto"), results)


def test_a_model_without_it_says_so(world: Path, tiny_model: Path, tmp_path: Path) -> None:
    sentence = "has no category: the model was saved without .* name one of mono, poly"
    with pytest.raises(ModelError, match=sentence):
        Scorer(DeCoDiffPipeline.from_pretrained(tiny_model), THRESHOLDS).score([b""], ["auto"])
    with pytest.raises(ModelError, match=sentence):
        infer(
            InferenceSource(world / "new"),
            tiny_model,
            world / "onnx",
            THRESHOLDS,
            InferenceStore(tmp_path / "results"),
            InferenceConfig(category="auto"),
        )
    model = small_pipeline(("mono", "poly"))
    rows = pd.DataFrame({"category": ["mono"], "split": ["train"], "label": ["good"]})
    fit_recognition(model, rows.assign(path="mono/0.png"), ImageFolder(world / "raw"), 0.05)
    assert model.recogniser is None


def test_a_category_of_that_name_is_meant(tmp_path: Path) -> None:
    model = small_pipeline(("auto", "unknown"))
    scorer = Scorer(model, {"categories": {"auto": {"threshold": 0.0}}})
    picture("mono", 0).save(tmp_path / "0.png")
    (answer,) = scorer.score([(tmp_path / "0.png").read_bytes()], ["auto"])
    assert (answer.category, answer.decision) == ("auto", "defective")
    assert answer.score is not None


def test_the_log_of_a_server_may_hold_images_of_no_category(tmp_path: Path) -> None:
    from decodiff_pipeline.monitoring.source import RecentSource

    lines = [
        {"category": "unknown", "decision": "unknown", "score": None},
        {"category": "mono", "decision": "good", "score": 0.25},
    ]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = RecentSource(tmp_path / "log.jsonl").rows(None)
    assert rows["category"].tolist() == ["mono"]
