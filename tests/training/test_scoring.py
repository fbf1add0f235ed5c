"""What the scoring is fitted on, what it chooses, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.models import narrow_autoencoder

from decodiff_pipeline.deco.config import DiscrepancyConfig, PreprocessConfig
from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
from decodiff_pipeline.deco.unet import build_unet
from decodiff_pipeline.errors import ConfigurationError, DataError
from decodiff_pipeline.pipelines.training.nodes import train_network
from decodiff_pipeline.training.scoring import ScoringConfig
from decodiff_pipeline.training.scoring_choice import (
    Drawn,
    auroc,
    choose_image_scores,
    choose_weight,
    image_auroc,
    localisation,
)
from decodiff_pipeline.training.scoring_fit import build_model

if TYPE_CHECKING:
    from pathlib import Path

SIDE, IMAGES = 32, 12
AS_THEY_ARE = DiscrepancyConfig(pixel_limit=1, latent_limit=1, pixel_sigma=0, latent_sigma=0)


NAMES = ("a", "b")


def drawn(*, pixel: float, latent: float, categories: int = 1) -> Drawn:
    """Noise, in which a defect of 4 x 4 pixels stands out by so much in either discrepancy."""
    random = np.random.default_rng(0)
    maps = [random.random((2 * IMAGES, SIDE, SIDE)).astype(np.float32) * 0.3 for _ in range(2)]
    masks = np.zeros((IMAGES, SIDE, SIDE), bool)
    for number in range(IMAGES):
        top, left = random.integers(0, SIDE - 4, 2)
        masks[number, top : top + 4, left : left + 4] = True
        for values, strength in zip(maps, (pixel, latent), strict=True):
            values[IMAGES + number, top : top + 4, left : left + 4] += strength
            np.maximum(values, 0, out=values)
    return Drawn(np.arange(IMAGES) % categories, np.arange(IMAGES), *maps, masks)


@pytest.mark.parametrize(
    ("pixel", "latent", "weights"),
    [(0.6, 0.0, {1.0}), (0.0, 0.6, {0.0}), (0.15, 0.15, {0.25, 0.5, 0.75})],
)
def test_the_discrepancy_that_shows_the_defects_gets_the_weight(
    pixel: float, latent: float, weights: set[float]
) -> None:
    maps = drawn(pixel=pixel, latent=latent)
    chosen, precision = choose_weight(AS_THEY_ARE, maps)
    assert chosen.pixel_weight in weights
    found = localisation(chosen, maps)
    assert precision == pytest.approx(found[0])
    assert sum(found) >= sum(localisation(AS_THEY_ARE, maps))


def test_a_single_discrepancy_has_no_weight_to_choose() -> None:
    config = replace(AS_THEY_ARE, fusion="latent")
    chosen, _ = choose_weight(config, drawn(pixel=0.6, latent=0.0))
    assert chosen == config


def test_scores_that_see_the_input_are_not_chosen_on_synthetic_defects() -> None:
    maps = drawn(pixel=0.6, latent=0.0)
    config = replace(AS_THEY_ARE, score_from="latent", top_share=0.05)
    chosen, _ = choose_image_scores(config, maps, NAMES)
    assert chosen.score_from != "latent"
    chosen, _ = choose_image_scores(replace(config, pixel_compared_with="both"), maps, NAMES)
    assert chosen.score_from == "latent"


def test_the_image_score_is_taken_from_what_tells_good_from_defective() -> None:
    maps = drawn(pixel=-0.2, latent=0.2)
    chosen, auroc = choose_image_scores(AS_THEY_ARE, maps, NAMES)
    assert chosen.score_from == "latent"
    assert auroc == pytest.approx(image_auroc(chosen, maps, NAMES))
    assert auroc > image_auroc(AS_THEY_ARE, maps, NAMES)


def test_what_was_given_stays_where_nothing_is_clearly_better() -> None:
    given = replace(AS_THEY_ARE, pixel_weight=0.4, score_from="pixel", top_share=0.02)
    obvious = drawn(pixel=0.9, latent=0.9)
    assert choose_image_scores(given, obvious, NAMES) == (given, 1.0)
    alike = replace(obvious, latent=obvious.pixel)
    assert choose_weight(given, alike)[0] == given


def test_where_images_differ_in_how_hard_they_are_the_level_is_taken_out() -> None:
    maps = drawn(pixel=0.4, latent=0.0)
    hardness = np.tile(np.linspace(0.3, 2.0, IMAGES), 2).astype(np.float32)[:, None, None]
    hard = replace(maps, pixel=maps.pixel * hardness)
    chosen, auroc = choose_image_scores(AS_THEY_ARE, hard, NAMES)
    assert chosen.level_power > 0
    plain = replace(chosen, level_power=0.0)
    assert auroc > image_auroc(plain, hard, NAMES) + 0.1


def test_each_category_has_the_score_that_is_clearly_better_there() -> None:
    """The defects of one show in the pixels alone, those of the other in the latents."""
    maps = drawn(pixel=0.6, latent=0.6, categories=2)
    of_b = np.flatnonzero(np.tile(maps.category_ids == 1, 2))
    of_a = np.flatnonzero(np.tile(maps.category_ids == 0, 2))
    for values, own in ((maps.pixel, of_b), (maps.latent, of_a)):
        values[own] = np.random.default_rng(1).random((len(own), SIDE, SIDE))
    chosen, auroc = choose_image_scores(replace(AS_THEY_ARE, fusion="pixel"), maps, NAMES)
    assert chosen.image_score("a").score_from in {"pixel", "map"}
    assert chosen.image_score("b").score_from == "latent"
    assert len(chosen.image_scores) == 1
    assert auroc == pytest.approx(image_auroc(chosen, maps, NAMES))


def test_a_defect_is_not_compared_with_its_own_image() -> None:
    nothing = np.zeros((6, 1, 1), np.float32)
    three = Drawn(np.zeros(3, int), np.arange(3), nothing, nothing, nothing[:3] > 0)
    scores = np.array([[1, 2, 3, 1.5, 2.5, 3.5]])
    assert auroc(scores, three, 0) == pytest.approx([(0 + 0 + 1 + 0 + 1 + 1) / 6])


def test_few_images_leave_a_category_with_the_score_that_suits_all() -> None:
    """One category of two images, which by chance are told apart better by the pixels."""
    maps = drawn(pixel=0.25, latent=0.35)
    few = maps.category_ids.copy()
    few[-1:] = 1
    chosen, _ = choose_image_scores(AS_THEY_ARE, replace(maps, category_ids=few), NAMES)
    assert chosen.image_score("b") == chosen.image_score("a")


def test_figures_are_means_over_the_categories() -> None:
    """One category's defects show, the other's do not; they differ in number."""
    maps = drawn(pixel=0.9, latent=0.9)
    maps.category_ids[:] = np.arange(IMAGES) < 3
    for number in np.flatnonzero(maps.category_ids == 0):
        maps.pixel[IMAGES + number] = maps.pixel[number]
        maps.latent[IMAGES + number] = maps.latent[number]
    assert image_auroc(AS_THEY_ARE, maps, NAMES) == pytest.approx((1 + 0.5) / 2)


class Photographs:
    """Stands in for the raw images."""

    def __init__(self) -> None:
        self.seen: set[str] = set()

    def read(self, name: str) -> Image.Image:
        self.seen.add(name)
        coarse = np.random.default_rng(sum(name.encode())).integers(0, 256, (6, 6), np.uint8)
        return Image.fromarray(coarse).resize((50, 40), Image.Resampling.BICUBIC)


def manifest(val: int = 5) -> pd.DataFrame:
    splits = ["val"] * 2 * val + ["train", "calibration", "test", "test"]
    labels = ["good"] * (2 * val + 3) + ["defective"]
    rows = pd.DataFrame(
        {"category": ["a", "b"] * val + ["a"] * 4, "split": splits, "label": labels}
    )
    rows["path"] = [f"{number}.png" for number in range(len(rows))]
    rows["sha256"] = [f"{number * 7 % 16:x}{number}" for number in range(len(rows))]
    return rows


def built(
    rows: pd.DataFrame, images: Photographs, fit_to: str = "stretch", **options: Any
) -> DeCoDiffPipeline:
    autoencoder = narrow_autoencoder()
    options = {"num_inference_steps": 2, "batch_size": 4} | options
    return build_model(
        autoencoder, build_unet("nano", ["a", "b"], 8, 4, 0.0), manifest=rows, images=images,
        geometry=PreprocessConfig(64, 64, fit_to), config=ScoringConfig.model_validate(options),
    )  # fmt: skip


def test_everything_is_fitted_on_good_val_images_alone(tmp_path: Path) -> None:
    images, rows = Photographs(), manifest()
    model = built(rows, images, discrepancy={"normalisation": "position"})
    assert images.seen == set(rows["path"][rows["split"] == "val"])
    record = model.config.scoring_fit
    assert (record["good_images"], record["synthetic_images"]) == (10, 80)
    assert 0 <= record["synthetic_image_auroc"] <= 1
    assert 0 < record["synthetic_pixel_ap"] <= 1
    assert model.discrepancy.latent_limit != DiscrepancyConfig().latent_limit
    model.save_pretrained(tmp_path)
    loaded = DeCoDiffPipeline.from_pretrained(tmp_path)
    assert loaded.discrepancy == model.discrepancy
    assert dict(loaded.config.scoring_fit) == record


@pytest.mark.parametrize("fit_to", ["letterbox", "crop", "tile"])
def test_it_is_fitted_on_squares_of_any_fit(fit_to: str) -> None:
    images = Photographs()
    model = built(manifest(), images, fit_to)
    assert model.preprocessing == PreprocessConfig(64, 64, fit_to)
    assert model.config.scoring_fit["synthetic_images"] == 80
    sizes = [image.shape for image in model([images.read("0.png")], "a").anomaly_maps]
    assert sizes == [{"letterbox": (51, 64), "crop": (64, 64), "tile": (64, 80)}[fit_to]]


@pytest.mark.parametrize("fit_to", ["stretch", "letterbox", "crop", "tile"])
def test_what_lies_outside_of_a_region_has_no_part_in_the_fit(
    fit_to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn_masks = []
    monkeypatch.setattr(
        "decodiff_pipeline.training.scoring_fit._fit_on_defects",
        lambda given, drawn, *_: drawn_masks.append(drawn) or (given, {}),
    )
    rows, images = manifest().assign(width=50, height=40), Photographs()
    corner = [[[0, 0], [20, 0], [20, 20], [0, 20]]]
    model = built(rows, images, fit_to, regions={"a": {"include": corner}})
    whole = built(rows, images, fit_to)
    assert list(model.regions) == ["a"]
    assert model.discrepancy.pixel_limit != whole.discrepancy.pixel_limit
    drawn, _ = drawn_masks
    of_a = drawn.category_ids[drawn.sources] == 0
    counted = drawn.inside[len(drawn.category_ids) :]
    assert not (drawn.masks & ~counted).any()
    assert counted[~of_a].all()
    assert 0 < counted[of_a].mean() < 0.6
    for pixel in drawn.smoothed(model.discrepancy).pixel[len(drawn.category_ids) :]:
        assert not np.isnan(pixel).any()


class Scribbled(Photographs):
    """The same with noise at the right and below."""

    def read(self, name: str) -> Image.Image:
        pixels = np.array(super().read(name))
        noise = np.random.default_rng(0).integers(0, 256, pixels.shape, np.uint8)
        noise[:26, :26] = pixels[:26, :26]
        return Image.fromarray(noise)


@pytest.mark.parametrize("fit_to", ["stretch", "letterbox", "crop", "tile"])
def test_limits_and_usual_deviations_do_not_see_what_lies_outside(fit_to: str) -> None:
    corner = [[[0, 0], [20, 0], [20, 20], [0, 20]]]
    rows = manifest().assign(width=50, height=40)
    rows = pd.concat([rows, rows[-4:-3].assign(path="100.png", sha256="2100")], ignore_index=True)
    rows["category"] = "a"
    first, second = (
        built(rows, images, fit_to, regions={"a": {"include": corner}}, fit="limits",
              usual_components=3)
        for images in (Photographs(), Scribbled())
    )  # fmt: skip
    assert first.discrepancy == second.discrepancy
    fitted, again = first.deviations.state_dict(), second.deviations.state_dict()
    assert fitted["directions"].any()
    assert all(fitted[name].equal(again[name]) for name in fitted)


def test_positions_of_tiles_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"'position'.*'tile'"):
        built(manifest(), Photographs(), "tile", discrepancy={"normalisation": "position"})


def test_usual_deviations_are_those_of_good_train_images(tmp_path: Path) -> None:
    rows = manifest()
    more = rows[rows["split"] == "train"].assign(path="100.png", sha256="2100")
    images, rows = Photographs(), pd.concat([rows, more], ignore_index=True)
    model = built(rows, images, fit="none", usual_components=3)
    assert images.seen == set(rows["path"][rows["split"] == "train"])
    plain = built(rows, images, fit="none")
    assert plain.deviations is None
    fitted_on = [images.read(name) for name in sorted(rows["path"][rows["split"] == "train"])]
    # Two images span their deviations whole, so that nothing is left of them.
    assert model(fitted_on, "a").scores == pytest.approx(0, abs=1e-3)
    assert plain(fitted_on, "a").scores.min() > 0.01
    other = model([images.read("7.png")], ["b"])
    assert np.allclose(other.anomaly_maps, plain([images.read("7.png")], ["b"]).anomaly_maps)
    model.save_pretrained(tmp_path)
    loaded = DeCoDiffPipeline.from_pretrained(tmp_path)
    seen = images.read("9.png")
    assert np.array_equal(loaded([seen], "a").anomaly_maps, model([seen], "a").anomaly_maps)


def test_the_fit_repeats_itself() -> None:
    first, second = (built(manifest(), Photographs()) for _ in range(2))
    assert first.config.discrepancy == second.config.discrepancy
    assert first.config.scoring_fit == second.config.scoring_fit


@pytest.mark.parametrize("fit", ["none", "limits", "weight"])
def test_what_is_not_fitted_is_as_given(fit: str) -> None:
    images = Photographs()
    given = DiscrepancyConfig(pixel_weight=0.3, score_from="pixel", top_share=0.02)
    model = built(
        manifest(), images, fit=fit,
        discrepancy={"pixel_weight": 0.3, "score_from": "pixel", "top_share": 0.02},
    )  # fmt: skip
    fitted = model.discrepancy
    if fit == "none":
        assert fitted == given
        assert not images.seen
        return
    assert fitted.pixel_limit != given.pixel_limit
    weight = fitted.pixel_weight if fit == "weight" else given.pixel_weight
    limits = {"pixel_limit": fitted.pixel_limit, "latent_limit": fitted.latent_limit}
    assert fitted == replace(given, pixel_weight=weight, **limits)


def test_without_val_images_the_cure_is_named() -> None:
    with pytest.raises(DataError, match=r"no good val images .* scoring\.fit to none"):
        built(manifest(val=0), Photographs())


def test_without_val_images_nothing_is_trained_first() -> None:
    nothing: Any = None  # nothing else is looked at before
    with pytest.raises(DataError, match="no good val images"):
        train_network(manifest(val=0), *[nothing] * 7, ScoringConfig(), nothing, nothing)
