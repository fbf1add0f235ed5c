"""The baselines beside the model: the autoencoder alone, and what the two have in common."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from decodiff_pipeline.deco.autoencoder import decode, encode, load_autoencoder
from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
from decodiff_pipeline.deco.unet import DeCoDiffUNet
from decodiff_pipeline.evaluation.autoencoder_baseline import AutoencoderBaseline
from decodiff_pipeline.evaluation.baselines import (
    measure_baselines,
)
from decodiff_pipeline.evaluation.scoring import score_images
from decodiff_pipeline.metrics.exact import IMAGE_METRICS, PIXEL_METRICS

if TYPE_CHECKING:
    from tests.evaluation.conftest import World

    from decodiff_pipeline.deco.weights import AutoencoderConfig


@pytest.fixture
def pipeline(tiny_autoencoder: AutoencoderConfig) -> DeCoDiffPipeline:
    torch.manual_seed(0)
    unet = DeCoDiffUNet(
        ["plate", "odd/../$name"], 8, base_channels=8, num_heads=1, context_dim=8, norm_groups=4
    )
    model = DeCoDiffPipeline(
        load_autoencoder(tiny_autoencoder),
        unet,
        DeCoDiffScheduler(),
        preprocess={"resize": 80, "image_size": 64},
        discrepancy={"pixel_sigma": 2.0, "score_from": "latent", "top_share": 0.01},
    )
    model.set_progress_bar_config(disable=True)
    return model


def test_the_autoencoder_is_judged_by_its_own_error(pipeline: DeCoDiffPipeline) -> None:
    random = np.random.default_rng(0)
    images = [Image.fromarray(random.integers(0, 256, (90, 70, 3), np.uint8)) for _ in range(3)]
    before = pipeline(images, "plate").scores
    output = AutoencoderBaseline.of(pipeline)(images, "plate", batch_size=2)
    tensor = pipeline.preprocess(images)
    decoded = decode(pipeline.vae, encode(pipeline.vae, tensor)[0])
    error = (decoded - tensor).abs().amax(1).numpy() / 2
    expected = np.stack([ndimage.gaussian_filter(one.clip(0, 1), 2.0) for one in error])
    np.testing.assert_allclose(output.anomaly_maps, expected, atol=1e-5)
    largest = np.sort(expected.reshape(3, -1), axis=1)[:, -round(0.01 * 64**2) :]
    np.testing.assert_allclose(output.scores, largest.mean(1), atol=1e-5)
    assert output.reconstructions.shape == (3, 64, 64, 3)
    assert np.array_equal(pipeline(images, "plate").scores, before)  # the model is as it was


def test_test_images_alone_are_scored_and_measured_like_the_model(plate: World) -> None:
    test = plate.manifest[plate.manifest["split"] == "test"]
    score_images(plate.model, test, plate.images, plate.store, plate.config)
    index = plate.store.index()
    assert set(index["split"]) == {"test"}
    assert len(index) == sum(plate.model.calls) == 13
    metrics, scores = measure_baselines(
        plate.manifest, plate.images, plate.model.preprocessing, plate.store, plate.config
    )
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert metrics["protocol"] == "strict"
    row = metrics["autoencoder"]["plate"]
    assert {name: row[name] for name in (*IMAGE_METRICS, *PIXEL_METRICS)} == pytest.approx(
        dict.fromkeys((*IMAGE_METRICS, *PIXEL_METRICS), 1.0)
    )
    assert metrics["pca"]["plate"]["image_auroc"] == 1
    certain = index[index["label"] != "uncertain"]
    assert scores["path"].tolist() == certain["path"].tolist()
    assert scores["autoencoder_score"].tolist() == certain["score"].tolist()
    bad = (certain["label"] == "defective").to_numpy()
    assert scores["pca_score"][bad].min() > scores["pca_score"][~bad].max()


def test_the_released_protocol_relabels_for_the_baseline_too(cropped: World) -> None:
    cropped.config = cropped.config.model_copy(update={"protocol": "released"})
    test = cropped.manifest[cropped.manifest["split"] == "test"]
    score_images(cropped.model, test, cropped.images, cropped.store, cropped.config)
    metrics, _ = measure_baselines(
        cropped.manifest, cropped.images, cropped.model.preprocessing, cropped.store, cropped.config
    )
    assert metrics["protocol"] == "released"
    # The bright square of the image whose mask is cropped off counts as a false alarm.
    assert metrics["autoencoder"]["plate"]["image_auroc"] < 1
