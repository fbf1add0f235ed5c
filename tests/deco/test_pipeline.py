"""Images in, maps out; saving and loading the whole model; discrepancies and scores."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from PIL import ExifTags, Image
from tests.models import narrow_autoencoder

from decodiff_pipeline.data.images import read_image
from decodiff_pipeline.deco.autoencoder import decode, encode, load_autoencoder
from decodiff_pipeline.deco.config import DiscrepancyConfig, ImageScoreConfig
from decodiff_pipeline.deco.discrepancy import anomaly_maps, image_scores, smoothed
from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
from decodiff_pipeline.deco.reference import DiscrepancyReference
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
from decodiff_pipeline.deco.unet import build_unet
from decodiff_pipeline.deco.weights import AutoencoderConfig, digest
from decodiff_pipeline.errors import ConfigurationError, ImageError, ModelError

if TYPE_CHECKING:
    from pathlib import Path


def model(**options: object) -> DeCoDiffPipeline:
    torch.manual_seed(1)
    pipeline = DeCoDiffPipeline(
        narrow_autoencoder(),
        build_unet("nano", ["mono", "poly"], 8, 4, dropout=0.5),
        DeCoDiffScheduler(),
        **{"preprocess": {"resize": 64, "image_size": 64}, **options},
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def photographs(number: int) -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (50, 70), np.uint8)) for _ in range(number)]


def textures(size: tuple[int, int]) -> Image.Image:
    coarse = np.random.default_rng(sum(size)).integers(0, 256, (9, 9, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def test_every_image_gets_a_map_a_score_and_a_reconstruction() -> None:
    output = model()(photographs(3), "mono")
    assert output.anomaly_maps.shape == (3, 64, 64)
    assert output.anomaly_maps.dtype == np.float32
    assert output.reconstructions.shape == (3, 64, 64, 3)
    assert output.reconstructions.dtype == np.uint8
    assert output.scores == pytest.approx(output.anomaly_maps.max((1, 2)))


def test_batches_do_not_change_the_scores() -> None:
    pipeline, images = model(), photographs(5)
    names = ["mono", "poly", "mono", "poly", "poly"]
    whole = pipeline(images, names, batch_size=5)
    parts = pipeline(images, names, batch_size=2)
    assert parts.scores == pytest.approx(whole.scores, abs=1e-5)


def test_a_saved_model_scores_as_before(tmp_path: Path) -> None:
    pipeline, images = model(num_inference_steps=2, discrepancy={"top_share": 0.1}), photographs(2)
    pipeline.save_pretrained(tmp_path)
    loaded = DeCoDiffPipeline.from_pretrained(tmp_path)
    assert loaded.categories == ("mono", "poly")
    assert loaded.image_size == 64
    expected, found = pipeline(images, "poly"), loaded(images, "poly")
    assert found.anomaly_maps == pytest.approx(expected.anomaly_maps, abs=1e-5)
    assert found.scores == pytest.approx(expected.scores, abs=1e-5)


def test_thresholds_beside_a_model_decide_and_maps_come_in_the_images_own_size(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline, images = model(), photographs(2)
    assert pipeline(images, "mono").decisions == [None, None]
    pipeline.save_pretrained(tmp_path / "pipeline")
    categories = {"mono": {"threshold": 0.0}, "poly": {"threshold": None}}
    (tmp_path / "thresholds.json").write_text(json.dumps({"categories": categories}))
    logging.getLogger("diffusers").addHandler(caplog.handler)
    loaded = DeCoDiffPipeline.from_pretrained(tmp_path / "pipeline")
    assert not caplog.records
    output = loaded(images, ["mono", "poly"])
    assert output.thresholds == [0.0, None]
    assert output.decisions == ["defective", None]
    assert [found.shape for found in output.full_size_maps] == [
        image.size[::-1] for image in images
    ]


def test_loading_brings_a_model_into_its_precision(tmp_path: Path) -> None:
    pipeline = model(bfloat16=True)
    assert {pipeline.vae.dtype, pipeline.unet.dtype} == {torch.float32}
    pipeline.save_pretrained(tmp_path)
    loaded = DeCoDiffPipeline.from_pretrained(tmp_path)
    assert {loaded.vae.dtype, loaded.unet.dtype} == {torch.bfloat16}
    expected, found = (
        pipeline.for_inference()(photographs(2), "poly"),
        loaded(photographs(2), "poly"),
    )
    assert found.scores == pytest.approx(expected.scores, abs=1e-5)


@pytest.mark.parametrize("mode", ["I;16", "RGBA", "PA", "CMYK", "1"])
def test_an_image_is_the_same_opened_by_anyone(tmp_path: Path, mode: str) -> None:
    grey = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    picture = Image.fromarray(grey)
    if mode == "I;16":
        picture = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode in {"RGBA", "PA"}:
        picture = Image.merge("RGBA", [picture] * 4)
        picture = picture if mode == "RGBA" else picture.convert("P").convert("PA")
    else:
        picture = picture.convert("RGB").convert(mode)
    path = tmp_path / "a.tif"
    (picture.convert("RGBA") if mode == "PA" else picture).save(path)
    pipeline = model()
    with Image.open(path) as opened:
        scores = pipeline(opened, "mono").scores
    assert scores == pytest.approx(pipeline([read_image(path)], "mono").scores, abs=1e-6)
    assert len(pipeline((image for image in [picture, picture]), "mono").scores) == 2


def test_an_image_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    textures((80, 40)).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        assert opened.size == (80, 40)
        seen = model().preprocess(opened)
    assert torch.equal(seen, model().preprocess([read_image(tmp_path / "a.png")]))


@pytest.mark.parametrize(
    ("images", "category", "options", "error", "message"),
    [
        (np.zeros((1, 8, 8)), "mono", {}, ModelError, "image 0 is of type ndarray; give PIL"),
        (photographs(1), "mono", {"batch_size": 0}, ModelError, "batch_size is 0; it must be"),
        (photographs(1), "mono", {"num_inference_steps": 0}, ConfigurationError, "0 reverse steps"),
        (Image.new("F", (8, 8)), "mono", {}, ImageError, "the image has mode F, which is not conv"),
        (photographs(1), "tile", {}, ModelError, "category 'tile'; this model knows mono, poly"),
        (photographs(2), ["mono"], {}, ModelError, "2 images with 1 categories"),
        ([], "mono", {}, ModelError, "0 images"),
    ],
)
def test_bad_arguments_are_told(
    images: Any, category: Any, options: dict[str, int], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        model()(images, category, **options)


def test_autoencoders_scale_their_latents_by_their_own_factor() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    kl = AutoencoderKL(
        block_out_channels=(32, 32, 32, 32),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        scaling_factor=0.5,
    ).eval()
    mean, std = encode(kl, images)
    posterior = kl.encode(images).latent_dist
    torch.testing.assert_close(mean, posterior.mean * 0.5)
    torch.testing.assert_close(std, posterior.std * 0.5)
    assert decode(kl, mean).shape == images.shape
    mean, std = encode(narrow_autoencoder(), images)
    assert mean.shape == (2, 4, 8, 8)
    assert std.shape == (2, 0, 8, 8)


def test_autoencoders_load_from_a_folder_and_are_told_apart(tmp_path: Path) -> None:
    narrow_autoencoder().save_pretrained(tmp_path / "vae")
    config = AutoencoderConfig(source=str(tmp_path), subfolder="vae")
    assert isinstance(load_autoencoder(config), AutoencoderTiny)
    before = digest(config)
    file = tmp_path / "vae" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    assert digest(config) != before
    with pytest.raises(ConfigurationError, match=r"has no config\.json and no diffusion_pytorch"):
        load_autoencoder(AutoencoderConfig(source=str(tmp_path)))
    build_unet("nano", ["a"], 8, 4, 0.0).save_pretrained(tmp_path)  # no autoencoder
    with pytest.raises(ConfigurationError, match=r"autoencoder\.source"):
        load_autoencoder(AutoencoderConfig(source=str(tmp_path)))


@pytest.mark.parametrize(
    ("fusion", "weight", "expected"),
    [
        ("geometric", 0.5, 0.4),
        ("geometric", 0.25, 0.64**0.75 * 0.25**0.25),
        ("geometric", 0.0, 0.64),
        ("geometric", 1.0, 0.25),
        ("arithmetic", 0.5, 0.445),
        ("arithmetic", 0.25, 0.5425),
        ("pixel", 0.25, 0.25),
        ("latent", 0.25, 0.64),
    ],
)
def test_the_weight_is_that_of_the_pixel_map(fusion: str, weight: float, expected: float) -> None:
    pixel = np.full((1, 4, 4), 0.25, np.float32)
    latent = np.full((1, 4, 4), 0.64, np.float32)
    config = DiscrepancyConfig(fusion=fusion, pixel_weight=weight)  # type: ignore[arg-type]
    maps = anomaly_maps(pixel, latent, config)
    assert maps.dtype == np.float32
    assert maps == pytest.approx(np.full((1, 4, 4), expected))


def test_the_score_is_the_mean_of_the_largest_values() -> None:
    maps = np.arange(100, dtype=np.float32).reshape(1, 10, 10)
    assert image_scores(maps, DiscrepancyConfig(top_share=0.0)) == pytest.approx([99])
    assert image_scores(maps, DiscrepancyConfig(top_share=0.03)) == pytest.approx([98])


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_the_score_may_be_compared_with_the_images_own_level(power: float) -> None:
    random = np.random.default_rng(0)
    maps = random.random((50, 10, 10), np.float32) * random.random((50, 1, 1), np.float32)
    found = image_scores(maps, DiscrepancyConfig(top_share=0.05, level_power=power))
    assert ((found > 0) & (found < 1)).all()
    largest = image_scores(maps, DiscrepancyConfig(level_power=power))
    divided = maps.max((1, 2)) / maps.mean((1, 2)) ** power
    assert largest.argsort().tolist() == divided.argsort().tolist()
    assert (found < largest).all()
    assert image_scores(np.zeros((1, 4, 4), np.float32), ImageScoreConfig(level_power=power)) == 0


def test_the_score_may_be_compared_with_the_surroundings() -> None:
    """A spot in a calm place scores higher than a stronger one in a restless place."""
    maps = np.full((2, 64, 64), 0.1, np.float32)
    maps[0, :, 32:] = 0.6
    maps[1] = maps[0]
    maps[0, 30:34, 8:12], maps[1, 30:34, 52:56] = 0.5, 0.8
    calm, restless = image_scores(maps, DiscrepancyConfig(level_power=1.0, level_sigma=0.1))
    assert calm > restless
    calm, restless = image_scores(maps, DiscrepancyConfig(level_power=1.0))
    assert calm < restless


def test_the_reconstruction_may_be_compared_with_the_input_too(tmp_path: Path) -> None:
    images, ids = torch.rand(2, 3, 64, 64) * 2 - 1, torch.tensor([0, 1])
    paper, both = model(), model(discrepancy={"pixel_compared_with": "both"})
    both.save_pretrained(tmp_path)
    found = DeCoDiffPipeline.from_pretrained(tmp_path).discrepancies(images, ids)
    encoded = paper.discrepancies(images, ids)
    with_input = (found.reconstructed - images).abs().amax(1)
    assert torch.allclose(found.pixel, (encoded.pixel * with_input).sqrt(), atol=1e-3)
    assert torch.allclose(found.latent, encoded.latent, atol=1e-3)


def test_each_category_may_have_its_own_image_score(tmp_path: Path) -> None:
    own = {"poly": {"score_from": "pixel", "top_share": 0.1, "level_power": 0.5}}
    pipeline, images = model(discrepancy={"image_scores": own}), photographs(2)
    pipeline.save_pretrained(tmp_path)
    loaded = DeCoDiffPipeline.from_pretrained(tmp_path)
    scores = loaded([images[0]] * 2, ["mono", "poly"]).scores
    assert scores[0] == pytest.approx(model()([images[0]], "mono").scores[0], abs=1e-5)
    alone = model(discrepancy=own["poly"])([images[0]], "poly").scores[0]
    assert scores[1] == pytest.approx(alone, abs=1e-5)


def test_a_model_saved_before_scores_and_is_identified_as_it_was(tmp_path: Path) -> None:
    """Its file has no field that came later, and what is compared with it has none either."""
    before = {
        "latent_reduction": "rms", "normalisation": "none", "pixel_limit": 0.3,
        "latent_limit": 0.4, "pixel_sigma": 2.0, "latent_sigma": 0.7, "fusion": "geometric",
        "pixel_weight": 0.25, "score_from": "latent", "top_share": 0.01,
    }  # fmt: skip
    pipeline, images = model(discrepancy=before), photographs(2)
    pipeline.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "model_index.json").read_text())["discrepancy"]
    assert saved == before
    loaded = DeCoDiffPipeline.from_pretrained(tmp_path)
    assert dict(loaded.config.discrepancy) == before
    found = loaded.discrepancies(loaded.preprocess(images), torch.tensor([0, 0]))
    _, latent = smoothed(found.pixel, found.latent, DiscrepancyConfig(**before))
    top = np.sort(latent.numpy().reshape(2, -1))[:, -round(0.01 * latent[0].numel()) :].mean(1)
    assert loaded(images, "mono").scores == pytest.approx(top, abs=1e-5)


def test_a_deviation_is_measured_against_what_is_usual_at_its_place() -> None:
    random = np.random.default_rng(0)
    usual = np.ones((64, 64)) + 4 * (np.arange(64) > 31)  # the right half is hard to reconstruct
    pixel = usual * (1 + 0.1 * random.standard_normal((200, 64, 64)))
    latent = pixel[:, ::8, ::8]
    reference = DiscrepancyReference(2, 64, 8)
    reference.fit(1, pixel, latent)
    given = torch.from_numpy(pixel), torch.from_numpy(latent)
    found, _ = reference.normalise(torch.ones(200, dtype=torch.int64), *given)
    assert found[..., :20].mean() == pytest.approx(1, abs=0.2)
    assert found[..., 44:].mean() == pytest.approx(1, abs=0.2)
    untouched, _ = reference.normalise(torch.zeros(200, dtype=torch.int64), *given)
    assert torch.equal(untouched, given[0])


def test_the_reference_is_saved_with_the_model(tmp_path: Path) -> None:
    reference = DiscrepancyReference(2, 64, 8)
    random = np.random.default_rng(0)
    for category in (0, 1):
        reference.fit(category, random.random((9, 64, 64)), random.random((9, 8, 8)))
    options = {
        "discrepancy": {
            "normalisation": "position",
            "score_from": "latent",
            "pixel_limit": 9,
            "latent_limit": 9,
        }
    }
    pipeline, images = model(reference=reference, **options), photographs(2)
    pipeline.save_pretrained(tmp_path)
    loaded = DeCoDiffPipeline.from_pretrained(tmp_path)
    expected = pipeline(images, "poly").anomaly_maps
    assert loaded(images, "poly").anomaly_maps == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ConfigurationError, match="needs a DiscrepancyReference"):
        model(**options)


def test_standardised_latents_come_back() -> None:
    unet = build_unet("nano", ["a"], 8, 4, 0.0)
    unet.register_to_config(latent_mean=[1.0, 2.0, 3.0, 4.0], latent_std=[1.0, 2.0, 4.0, 0.5])
    latents = torch.tensor([1.0, 4.0, 7.0, 4.5]).reshape(1, 4, 1, 1).expand(2, 4, 8, 8)
    torch.testing.assert_close(unet.standardise(latents)[0, :, 0, 0], torch.tensor([0.0, 1, 1, 1]))
    torch.testing.assert_close(unet.restore(unet.standardise(latents)), latents)


def test_large_images_are_scored_tile_by_tile() -> None:
    pipeline = model(preprocess={"resize": 64, "image_size": 64, "fit": "tile", "overlap": 0.25})
    wide, small, tall = (textures((150, 64)), textures((64, 64)), textures((64, 130)))
    output = pipeline([wide, small, tall], ["mono", "poly", "mono"], batch_size=2)
    assert [each.shape for each in output.anomaly_maps] == [(64, 150), (64, 64), (130, 64)]
    assert [each.shape for each in output.reconstructions] == [
        (64, 150, 3), (64, 64, 3), (130, 64, 3),
    ]  # fmt: skip
    assert output.scores == pytest.approx([each.max() for each in output.anomaly_maps])

    stretched = model()
    alone = stretched([small], "poly")
    assert output.anomaly_maps[1] == pytest.approx(alone.anomaly_maps[0], abs=1e-5)
    assert output.scores[1] == pytest.approx(alone.scores[0], abs=1e-5)
    tiles = stretched([wide.crop((0, 0, 64, 64)), wide.crop((86, 0, 150, 64))], "mono")
    # Up to column 43 there is the first tile alone, from 107 on the third.
    first, last = tiles.anomaly_maps
    assert output.anomaly_maps[0][:, :43] == pytest.approx(first[:, :43], abs=1e-5)
    assert output.anomaly_maps[0][:, 107:] == pytest.approx(last[:, 21:], abs=1e-5)

    squares = pipeline.preprocess([wide, small, tall])
    sizes = [image.size for image in (wide, small, tall)]
    again = pipeline(squares, ["mono", "poly", "mono"], sizes=sizes)
    assert again.scores == pytest.approx(output.scores, abs=1e-5)
    with pytest.raises(ModelError, match="2 images of these sizes have 4 squares, not 7"):
        pipeline(squares, "mono", sizes=sizes[:2])


def test_a_recorded_forward_pass_gives_the_maps_of_the_model() -> None:
    pipeline = model(
        preprocess={"resize": 64, "image_size": 64, "fit": "tile"}, discrepancy={"top_share": 0.1}
    )
    images = [textures((150, 64)), textures((64, 64))]
    output, ids = pipeline(images, ["poly", "mono"]), torch.tensor([1, 0])
    found = pipeline.discrepancies(pipeline.preprocess(images), torch.tensor([1, 1, 1, 0]))
    sizes = [image.size for image in images]
    maps, scores = pipeline.maps_and_scores(found.pixel, found.latent, ids, sizes)
    assert scores == pytest.approx(output.scores, abs=1e-5)
    for anomaly_map, expected in zip(maps, output.anomaly_maps, strict=True):
        assert anomaly_map == pytest.approx(expected, abs=1e-5)


def test_the_padding_of_a_letterbox_is_neither_shown_nor_scored() -> None:
    pipeline = model(preprocess={"resize": 64, "image_size": 64, "fit": "letterbox"})
    output = pipeline([textures((128, 64)), textures((64, 128))], "mono")
    assert [each.shape for each in output.anomaly_maps] == [(32, 64), (64, 32)]
    assert output.scores == pytest.approx([each.max() for each in output.anomaly_maps])
    assert pipeline([textures((128, 64))] * 2, "mono").anomaly_maps.shape == (2, 32, 64)


def test_a_defect_weighs_as_much_in_a_large_image() -> None:
    config, square = DiscrepancyConfig(top_share=0.01), 64 * 64
    small, large = np.zeros((1, 64, 64), np.float32), np.zeros((1, 64, 640), np.float32)
    small[0, :8, :5] = large[0, :8, :5] = 1
    assert image_scores(small, config, square) == image_scores(large, config, square)
    assert image_scores(large[:, :4, :5], config, square) == 1  # fewer pixels than the share asks
