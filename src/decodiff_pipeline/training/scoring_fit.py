"""Puts a model together, and fits its scoring on val images: units, weight, image scores."""

from __future__ import annotations

import logging
import math
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from decodiff_pipeline.data.bit_depth import depth_of_categories
from decodiff_pipeline.data.read_ahead import read_ahead
from decodiff_pipeline.data.regions import load_regions
from decodiff_pipeline.data.synthetic_defects import HARDER
from decodiff_pipeline.data.synthetic_images import synthetic_images
from decodiff_pipeline.data.transforms import square_inside
from decodiff_pipeline.deco.autoencoder import reduction
from decodiff_pipeline.deco.device import resolve_device
from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
from decodiff_pipeline.deco.reference import DiscrepancyReference
from decodiff_pipeline.deco.regions import latent_cells
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.evaluation.predict import ModelInput, measure_discrepancies, progress
from decodiff_pipeline.training.scoring import images_to_fit
from decodiff_pipeline.training.scoring_choice import (
    Drawn,
    choose_image_scores,
    choose_weight,
    image_auroc,
)
from decodiff_pipeline.training.usual_deviations import fit_deviations
from decodiff_pipeline.training.validation import evenly_drawn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.autoencoder import Autoencoder
    from decodiff_pipeline.deco.config import DiscrepancyConfig, ImageScoreConfig, PreprocessConfig
    from decodiff_pipeline.deco.unet import DeCoDiffUNet
    from decodiff_pipeline.training.scoring import ScoringConfig

logger = logging.getLogger(__name__)

# What is fitted on, as many images of each category: their discrepancies stay in memory.
MAX_GOOD = 1024
MAX_DEFECTIVE = 256
# A category of few images gets several defects in each, up to so many of them, or so many in all.
MAX_VERSIONS, ENOUGH = 8, 48
POOR = 0.6  # image AUROC on synthetic defects; 0.5 is chance


def build_model(
    autoencoder: Autoencoder,
    unet: DeCoDiffUNet,
    *,
    manifest: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    config: ScoringConfig,
) -> DeCoDiffPipeline:
    """Put the parts together and, if asked to, fit usual deviations, reference and scoring.

    Args:
        manifest: The validated manifest; only good images of its val split are looked at, and of
            its train split for the usual deviations.

    Raises:
        ConfigurationError: A region does not suit the images.
        DataError: Something is to be fitted, but there is no good val image.
    """

    autoencoder.to(device := resolve_device())
    unet.to(device)
    by_position = config.discrepancy.normalisation == "position"
    latent_size = geometry.image_size // reduction(autoencoder)
    reference = DiscrepancyReference(len(unet.categories), geometry.image_size, latent_size)
    model = DeCoDiffPipeline(
        autoencoder,
        unet,
        DeCoDiffScheduler(reverse_step=config.reverse_step),
        reference if by_position else None,
        preprocess=geometry.facts(),
        discrepancy=config.discrepancy.facts(),
        num_inference_steps=config.num_inference_steps,
        bfloat16=config.bfloat16,
        bit_depths=depth_of_categories(manifest),
        regions={
            name: region.facts()
            for name, region in load_regions(config.regions, manifest, geometry).items()
        },
    )
    model.for_inference()
    if config.usual_components:
        model.register_modules(deviations=fit_deviations(model, manifest, images, config))
    if config.looks_at_images:
        fit_scoring(model, manifest, images, config)
    return model


def fit_scoring(
    model: DeCoDiffPipeline, manifest: pd.DataFrame, images: ImageFolder, config: ScoringConfig
) -> None:
    """Fit the model's reference and scoring in place, as far as it uses them.

    Of more than 1,024 good val images, or more than 256 to draw synthetic defects in, as many of
    each category are looked at; of a tiled image, one tile.

    Args:
        manifest: The validated manifest; only the good images of its val split are looked at.

    Raises:
        DataError: There is no good val image of a category the model knows.
        ImageError: An image cannot be read.
        ModelError: A fitted limit is not positive.
    """
    good = measure_good(model, manifest, images, config)
    if config.fit == "none":
        return
    fitted = replace(
        config.discrepancy,
        pixel_limit=_limit("pixel", good.pixel, config, good.inside),
        latent_limit=_limit("latent", good.latent, config, good.inside),
    )
    record: dict[str, Any] = {"fit": config.fit, "good_images": len(good.rows)}
    logger.info(
        "clip limits fitted on %d good val images: %.4g of the pixel and %.4g of the latent "
        "discrepancy",
        *(len(good.rows), fitted.pixel_limit, fitted.latent_limit),
    )
    if config.fit != "limits":
        drawn = draw_defects(model, good, manifest, images, config)
        fitted, measured = _chosen(fitted, drawn, model.categories, config)
        record |= measured
    model.register_to_config(discrepancy=fitted.facts(), scoring_fit=record)


@dataclass(frozen=True)
class Good:
    """Good val images.

    Attributes:
        rows: Of the manifest.
        ids: Of their categories, int64 (N,).
        pixel: Discrepancies in the model's units, float32 (N, S, S).
        latent: The same, float32 (N, s, s).
        inside: The pixels that count, bool (N, S, S); ``None`` for all.
    """

    rows: pd.DataFrame
    ids: np.ndarray
    pixel: np.ndarray
    latent: np.ndarray
    inside: np.ndarray | None


def measure_good(
    model: DeCoDiffPipeline, manifest: pd.DataFrame, images: ImageFolder, config: ScoringConfig
) -> Good:
    """Measure the good images and fit the reference, where there is one, by them."""
    rows = images_to_fit(manifest, model.categories)
    numbers = {category: number for number, category in enumerate(model.categories)}
    ids = rows["category"].map(numbers).to_numpy(copy=True)
    chosen = evenly_drawn(ids, MAX_GOOD)
    rows, ids = rows.iloc[chosen], ids[chosen]
    geometry, regions = model.preprocessing, model.regions
    inside = np.ones((len(rows), model.image_size, model.image_size), bool) if regions else None

    def read(item: tuple[int, Any]) -> ModelInput:
        number, row = item
        image = images.read(row.path)
        region = regions.get(row.category)
        square, counted = square_inside(image, geometry, row.sha256, region)
        if inside is not None and counted is not None:
            inside[number] = counted
        return ModelInput(row.path, row.category, image.size, [square])

    with closing(read_ahead(read, enumerate(rows.itertuples()))) as squares:
        pixel, latent = _discrepancies(model, squares, len(rows), config)
    if config.discrepancy.normalisation == "position":
        for number, category in enumerate(model.categories):
            own = ids == number
            if not own.any():
                logger.warning(
                    "%s has no val image: it gets the statistics of all categories", category
                )
                own[:] = True
            model.reference.fit(number, pixel[own], latent[own])
        pixel, latent = _normalised(model, ids, pixel, latent)
    return Good(rows, ids, pixel, latent, inside)


def _limit(
    name: str, values: np.ndarray, config: ScoringConfig, inside: np.ndarray | None = None
) -> float:
    if inside is not None:
        side = values.shape[-1]
        values = values[inside if side == inside.shape[-1] else latent_cells(inside, side)]
    limit = float(config.limit_factor * np.quantile(values, config.limit_quantile))
    if not (math.isfinite(limit) and limit > 0):
        raise ModelError(
            f"the limit of the {name} discrepancy fitted on good val images is {limit}: the model "
            "changes nothing in them, or its weights are not finite; train longer, or set "
            f"scoring.fit to none and scoring.discrepancy.{name}_limit yourself"
        )
    return limit


def draw_defects(
    model: DeCoDiffPipeline,
    good: Good,
    manifest: pd.DataFrame,
    images: ImageFolder,
    config: ScoringConfig,
    version: int = HARDER,
) -> Drawn:
    """Put synthetic defects into some of the good images, and measure those too."""
    chosen = evenly_drawn(good.ids, MAX_DEFECTIVE)
    ids = good.ids[chosen]
    places = {path: place for place, path in enumerate(good.rows["path"].iloc[chosen])}
    versions = np.clip(-(-ENOUGH // np.bincount(ids, minlength=1).clip(1)), 1, MAX_VERSIONS)
    defects = [
        defect
        for defect in synthetic_images(manifest, MAX_VERSIONS, version=version)
        if defect.path in places and defect.number < versions[ids[places[defect.path]]]
    ]
    sources = np.array([places[defect.path] for defect in defects])
    masks = np.zeros((len(defects), model.image_size, model.image_size), bool)
    regions = model.regions

    def draw(number: int) -> ModelInput:
        defect = defects[number]
        region = regions.get(defect.category)
        square, masks[number] = defect.draw(images, model.preprocessing, region)
        return ModelInput(defect.path, defect.category, square.shape[1::-1], [square])

    with closing(read_ahead(draw, range(len(defects)))) as drawn:
        pixel, latent = _discrepancies(model, drawn, len(defects), config)
    if config.discrepancy.normalisation == "position":
        pixel, latent = _normalised(model, ids[sources], pixel, latent)
    inside = None
    if good.inside is not None:
        inside = good.inside[chosen]
        inside = np.concatenate([inside, inside[sources]])
    return Drawn(
        category_ids=ids,
        sources=sources,
        pixel=np.concatenate([good.pixel[chosen], pixel]),
        latent=np.concatenate([good.latent[chosen], latent]),
        masks=masks,
        inside=inside,
    )


def _discrepancies(
    model: DeCoDiffPipeline, images: Iterable[ModelInput], count: int, config: ScoringConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Pixel and latent discrepancies of images, one square each, that are read as they come."""
    with progress(count, "fitting the scoring") as bar:
        found = list(measure_discrepancies(model, images, bar, batch_size=config.batch_size))
    return (
        np.concatenate([batch.pixel for batch in found]),
        np.concatenate([batch.latent for batch in found]),
    )


def _normalised(
    model: DeCoDiffPipeline, ids: np.ndarray, pixel: np.ndarray, latent: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    found = model.reference.normalise(*map(torch.from_numpy, (ids, pixel, latent)))
    return found[0].numpy(), found[1].numpy()


def _chosen(
    given: DiscrepancyConfig, drawn: Drawn, categories: Sequence[str], config: ScoringConfig
) -> tuple[DiscrepancyConfig, dict[str, Any]]:
    maps = drawn.smoothed(given)
    chosen, precision = choose_weight(given, maps)
    if config.fit == "all":
        chosen, auroc = choose_image_scores(chosen, maps, categories)
    else:
        auroc = image_auroc(chosen, maps, categories)
    logger.info(
        "on %d synthetic defects: pixel AP %.3f with fusion %s and pixel_weight %g, image AUROC "
        "%.3f with %s",
        *(len(drawn.masks), precision, chosen.fusion, chosen.pixel_weight, auroc),
        _described(chosen.image_score("")),
    )
    for category, score in chosen.image_scores.items():
        logger.info("image score of %s: %s", category, _described(score))
    if auroc < POOR:
        logger.warning(
            "the model hardly tells synthetic defects from good val images (image AUROC %.3f, "
            "0.5 is chance): train longer, or expect little of it",
            auroc,
        )
    return chosen, {
        "synthetic_images": len(drawn.masks),
        "synthetic_pixel_ap": precision,
        "synthetic_image_auroc": auroc,
    }


def _described(score: ImageScoreConfig) -> str:
    return ", ".join(f"{name} {value}" for name, value in asdict(score).items())
