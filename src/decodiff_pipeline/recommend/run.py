"""Look at a folder of images and write an environment for it."""

from __future__ import annotations

import logging
import os
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from decodiff_pipeline.data.acquire import RAW
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.layouts.base import GOOD
from decodiff_pipeline.data.manifest import DataConfig, build_manifest
from decodiff_pipeline.deco.autoencoder import load_autoencoder
from decodiff_pipeline.deco.weights import EMBEDDED, EMBEDDED_COLOUR, AutoencoderConfig
from decodiff_pipeline.errors import DataError
from decodiff_pipeline.evaluation.visibility.advice import answer, warnings
from decodiff_pipeline.evaluation.visibility.measure import mask_sizes
from decodiff_pipeline.evaluation.visibility.report import check_visibility
from decodiff_pipeline.recommend import conf_files
from decodiff_pipeline.recommend.choices import (
    Choice,
    Facts,
    choose_flips,
    choose_geometry,
    choose_steps,
    choose_views,
    detail_kept,
)
from decodiff_pipeline.recommend.layout import find_layout, missing
from decodiff_pipeline.recommend.machine import choose_preset, seconds_per_step
from decodiff_pipeline.recommend.orientation import flip_ratios

if TYPE_CHECKING:
    import pandas as pd

    from decodiff_pipeline.data.caching import LatentCacheConfig
    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.evaluation.visibility.config import VisibilityConfig
    from decodiff_pipeline.recommend.config import Target
    from decodiff_pipeline.training.config import TrainingConfig
    from decodiff_pipeline.training.scoring import ScoringConfig

logger = logging.getLogger(__name__)

LOOKED_AT = 64  # good images of each category whose orientation and detail are estimated
CATEGORIES = 8  # whose visibility is measured
CHECKED = {"images": 4, "sizes": (0.25, 0.5, 1.0, 2.0), "pictures": 0}
CELL = 8  # pixels of the model's input; the masks' sizes in the image do not depend on it


@dataclass(frozen=True)
class Base:
    """The parameters that an environment differs from.

    Attributes:
        data: How images lie and are split.
        geometry: How they are fitted into squares.
        autoencoder: Which.
        latents: Views and augmentation.
        training: Size of the network and length.
        scoring: Of the anomaly maps.
        visibility: What is measured of the autoencoder.
        least: Good train images that a category needs.
    """

    data: DataConfig
    geometry: PreprocessConfig
    autoencoder: AutoencoderConfig
    latents: LatentCacheConfig
    training: TrainingConfig
    scoring: ScoringConfig
    visibility: VisibilityConfig
    least: int


def recommend(target: Target, base: Base, minutes: float) -> list[str]:
    """Write an environment for a folder of images, and say what to do next.

    Args:
        target: Where the images are and what is written.
        base: The parameters as they are.
        minutes: That training should take.

    Returns:
        The commands to give next.

    Raises:
        ConfigurationError: The environment cannot be written, or the autoencoder is not there.
        DataError: The images lie in no layout that is known, or there is no good one.
    """
    layout, fits = find_layout(target.root)
    logger.info("layout %s: %s", layout.layout, layout.why)
    others = [f"{one.layout} knows {one.known}" for one in fits if one is not layout]
    logger.info("the other layouts: %s", ", ".join(others))
    data = base.data.model_copy(update={"layout": layout.layout, "categories": None, "exclude": ()})
    images = ImageFolder(target.root)
    manifest = build_manifest(images, data)
    images = images.of(manifest)
    for sentence in missing(manifest, base.least):
        logger.warning("missing: %s", sentence)
    facts = gather(manifest, images, base)
    geometry, reasons = choose_geometry(facts, base.geometry)
    preset = choose_preset()
    seconds = seconds_per_step(preset.value, geometry.image_size, base.autoencoder, base.training)
    autoencoder, kept = _autoencoder(manifest, images, geometry, base, preset.value)
    files = {
        "globals.yml": _globals(target),
        "parameters_data.yml": _data(data, layout.why),
        "parameters_caching.yml": _caching(base, facts, geometry, reasons, autoencoder, kept),
        "parameters_training.yml": _training(
            base, geometry, preset, choose_steps(minutes, seconds)
        ),
    }
    for name in conf_files.write(target.folder, files):
        logger.info("written: conf/%s/%s", target.name, name)
    return _next(target)


def gather(manifest: pd.DataFrame, images: ImageFolder, base: Base) -> Facts:
    """What is known of the good images, and of the sizes of the masks.

    Raises:
        DataError: There is no good image that can be read.
    """
    readable = manifest[manifest["error"] == ""]
    good = readable[readable["label"] == GOOD]
    if good.empty:
        raise DataError(f"{images.path} has no good image that can be read: put some there")
    flips, detail, sides = [], [], []
    for _, rows in readable.groupby("category", sort=True):
        known = rows[rows["label"] == GOOD].sort_values("sha256").drop_duplicates("sha256")
        looked_at = [images.read(path) for path in known["path"].head(LOOKED_AT)]
        flips.append(flip_ratios(looked_at))
        detail += [detail_kept(image) for image in looked_at]
        masked = rows[rows["mask_error"] == ""]
        sizes = mask_sizes(masked, images, base.geometry, CELL, base.visibility.masks)
        sides += [sizes["side"]["q10"]] if sizes else []
    return Facts(
        sizes=list(zip(good["width"], good["height"], strict=True)),
        train=int((good["split"] == "train").sum()),
        mask_side=min(sides, default=None),
        detail=float(np.median(detail)),
        flips=flips,
    )


def _autoencoder(
    manifest: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    base: Base,
    preset: str,
) -> tuple[AutoencoderConfig, str]:
    """The configured autoencoder, or the one for colour where it loses that, and the reason."""
    chosen, reason, lost = _checked(manifest, images, geometry, base, preset, base.autoencoder)
    if lost and chosen.source == EMBEDDED:
        other = AutoencoderConfig(EMBEDDED_COLOUR)
        found, better, still = _checked(manifest, images, geometry, base, preset, other)
        if not still:
            return found, f"{better}; {EMBEDDED}: {reason}"
    return chosen, reason


def _checked(
    manifest: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    base: Base,
    preset: str,
    autoencoder: AutoencoderConfig,
) -> tuple[AutoencoderConfig, str, bool]:
    """What an autoencoder keeps of the images, as a reason, and whether it loses their colour."""
    names = sorted(manifest["category"].unique())[:CATEGORIES]
    rows = manifest[manifest["category"].isin(names) & (manifest["error"] == "")]
    config = base.visibility.model_copy(update=CHECKED)
    report, found = check_visibility(
        rows, images, geometry=geometry, autoencoder=load_autoencoder(autoencoder),
        name=autoencoder.source, config=config,
        preset=preset, reverse_steps=base.scoring.num_inference_steps,
    )  # fmt: skip
    for name, one in found.items():
        logger.info("%s", answer(name, one, geometry, config, report["seconds"]["image"]))
    said = [sentence for name, one in found.items() for sentence in warnings(name, one, config)]
    for sentence in said:
        logger.warning("%s", sentence)
    figures = [one.figures for one in found.values() if one.figures.get("psnr") is not None]
    if not figures:
        return autoencoder, "not measured, for want of good val images", False
    kept = [one["saturation_kept"] for one in figures if one["saturation_kept"] is not None]
    colour = f"keeps {100 * min(kept):.0f} % of the saturation" if kept else "images are grey"
    advice = "; see the warnings: fit one of your own (docs/autoencoder.md)" if said else ""
    reason = f"PSNR {min(one['psnr'] for one in figures):.1f} dB, {colour}{advice}"
    return autoencoder, reason, bool(kept) and min(kept) < config.min_saturation


def _globals(target: Target) -> str:
    why = {"dataset": f"the images are in {RAW}/{target.dataset}"}
    return conf_files.render({"dataset": target.dataset}, why)


def _data(data: DataConfig, why: str) -> str:
    values = data.model_dump(mode="json", exclude_unset=True)
    return conf_files.render({"data": values}, {"data.layout": why})


def _caching(
    base: Base,
    facts: Facts,
    geometry: PreprocessConfig,
    reasons: dict[str, str],
    autoencoder: AutoencoderConfig,
    kept: str,
) -> str:
    latents = base.latents.model_dump(mode="json", exclude_unset=True)
    views, flips = choose_views(facts, geometry), choose_flips(facts)
    augmentation = asdict(base.latents.augmentation)
    augmentation |= {name: choice.value for name, choice in flips.items()}
    latents |= {"views": views.value, "augmentation": augmentation}
    why = {f"preprocessing.{name}": reason for name, reason in reasons.items()}
    why |= {"autoencoder.source": kept, "latent_cache.views": views.why}
    why |= {f"latent_cache.augmentation.{name}": one.why for name, one in flips.items()}
    groups = {
        "preprocessing": asdict(geometry),
        "autoencoder": asdict(autoencoder),
        "latent_cache": latents,
    }
    return conf_files.render(groups, why)


def _training(base: Base, geometry: PreprocessConfig, preset: Choice, steps: Choice) -> str:
    training = base.training.model_dump(mode="json", exclude_unset=True)
    for length in ("epochs", "max_minutes"):
        training.pop(length, None)
    training |= {"preset": preset.value, "steps": steps.value}
    groups: dict[str, Any] = {"training": training}
    why = {"training.preset": preset.why, "training.steps": steps.why}
    if geometry.fit == "tile":
        scoring = base.scoring.model_dump(mode="json", exclude_unset=True)
        discrepancy = dict(scoring.get("discrepancy") or {}) | {"normalisation": "none"}
        groups["scoring"] = scoring | {"discrepancy": discrepancy}
        why["scoring.discrepancy.normalisation"] = "places mean nothing among tiles"
    return conf_files.render(groups, why)


def _next(target: Target) -> list[str]:
    run = f"kedro run --env {target.name}"
    if target.acquired:
        return [run]
    source = shlex.quote(os.path.relpath(target.root, Path.cwd()))
    acquire = f"python -m decodiff_pipeline.data.acquire folder {source} {target.dataset}"
    return [acquire, run]
