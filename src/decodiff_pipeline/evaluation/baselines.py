"""What the model has to beat on the same images: a PCA, and its autoencoder alone."""

from __future__ import annotations

import logging
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from scipy import ndimage

from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.geometry import plan
from decodiff_pipeline.deco.regions import EVERYTHING
from decodiff_pipeline.evaluation.category_evaluator import CERTAIN, CategoryEvaluator
from decodiff_pipeline.evaluation.protocols import (
    image_sizes,
    labelled,
    labelled_inside,
    measure_pixels,
    with_ground_truth,
)
from decodiff_pipeline.metrics.exact import (
    IMAGE_METRICS,
    PIXEL_METRICS,
    Metrics,
    OnDemand,
    image_metrics,
    pixel_metrics,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.regions import Region
    from decodiff_pipeline.evaluation.config import EvaluationConfig
    from decodiff_pipeline.evaluation.predictions import PredictionStore
    from decodiff_pipeline.metrics.exact import Maps

logger = logging.getLogger(__name__)

SIDE = 64
COMPONENTS = 60
SMOOTHING = 1.5  # pixels at SIDE
MIN_IMAGES = 2
MOST_FITTED = 4096  # images of a category that the PCA is fitted to
BLOCK = 1024  # test images whose errors are computed together
TOUCHED_SIDE = 256
GOOD_SPLITS = ("train", "val", "calibration")


def measure_baselines(
    manifest: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    autoencoder: PredictionStore,
    config: EvaluationConfig,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Metrics of both baselines in every category, and their scores.

    Args:
        autoencoder: Test images as the autoencoder baseline scored them.
        config: Protocol and limit of AUPRO.

    Returns:
        ``pca`` and ``autoencoder``, category → metrics, ``protocol`` and ``resolution``; see
        `PcaBaseline`; ``None`` wherever there is nothing to measure. And a row for
        each good or defective test image: path, category, pca_score, autoencoder_score (float64,
        NaN where there is none).
    """
    pca = pca_baseline(manifest, images, geometry, config, autoencoder.regions())
    index = autoencoder.index()
    table = {}
    for category in sorted(set(manifest["category"])):
        rows = index[index["category"] == category]
        table[category] = _measured(category, rows, autoencoder, images, config)
        logger.info(
            "autoencoder alone on %s: image AUROC %s", category, table[category]["image_auroc"]
        )
    certain = index[index["label"].isin(CERTAIN)]
    scores = pd.DataFrame(
        {
            "path": certain["path"],
            "category": certain["category"],
            "pca_score": certain["path"].map(pca.scores).astype(float),
            "autoencoder_score": certain["score"].astype(float),
        }
    )
    metrics = {
        "pca": pca.metrics,
        "autoencoder": table,
        "protocol": config.protocol,
        "resolution": config.resolution,
    }
    return metrics, scores.reset_index(drop=True)


def _measured(
    category: str,
    rows: pd.DataFrame,
    predictions: PredictionStore,
    images: ImageFolder,
    config: EvaluationConfig,
) -> dict[str, Any]:
    """Metrics of one category's test images, as the protocol labels them."""
    if rows.empty:
        return dict.fromkeys((*IMAGE_METRICS, *PIXEL_METRICS))
    index = labelled(rows, images, predictions.geometry(), config.protocol)
    return CategoryEvaluator(category, index, predictions, images, config).metrics()


class PcaBaseline(NamedTuple):
    """What the PCA came to.

    Attributes:
        metrics: Category → metrics, keys as in `metrics.image_metrics` and
            `metrics.pixel_metrics`, ``n_fitted``, and ``pixel_ap_touched_masks``: at 256², every
            pixel that a defect touches defective, which is how published baselines were measured
            and about 10 % above the strict figure. All ``None`` where a category has fewer than
            two good images to fit.
        scores: Path → score, of the good and defective test images that could be scored.
    """

    metrics: dict[str, dict[str, Any]]
    scores: dict[str, float]


def pca_baseline(
    manifest: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    config: EvaluationConfig,
    regions: Mapping[str, Region] | None = None,
) -> PcaBaseline:
    """Fit and score the PCA of every category.

    Args:
        geometry: The model's; the masks are those that the model's maps are compared with.
        config: Protocol, resolution and limit of AUPRO.
        regions: Category → what of its images counts; all where it is not in there.
    """
    regions = regions or {}
    manifest = labelled_inside(manifest, images, regions)
    table: dict[str, dict[str, Any]] = {}
    all_scores: dict[str, float] = {}
    for category, rows in manifest.groupby("category", sort=True):
        found = error_maps(rows, images, regions.get(str(category)))
        metrics: dict[str, Any] = dict.fromkeys(
            (*IMAGE_METRICS, *PIXEL_METRICS, "pixel_ap_touched_masks")
        )
        if found is not None:
            test, maps = found
            test = labelled(test, images, geometry, config.protocol)
            scores = _scores(maps, test, geometry, config)
            all_scores |= dict(zip(test["path"], scores.tolist(), strict=True))
            metrics |= image_metrics(scores, (test["label"] == "defective").to_numpy())
            metrics |= _pixel_metrics(test, maps, images, geometry, config, regions)
        table[str(category)] = metrics | {"n_fitted": len(_fitted(rows))}
        logger.info("PCA baseline of %s: image AUROC %s", category, metrics["image_auroc"])
    return PcaBaseline(table, all_scores)


def error_maps(
    rows: pd.DataFrame, images: ImageFolder, region: Region | None = None
) -> tuple[pd.DataFrame, np.ndarray] | None:
    """Fit the PCA of a category to its good images outside test, and apply it to its test images.

    Args:
        rows: The category's rows of the manifest.
        region: What of its images counts.

    Returns:
        The rows of the good and defective test images, and a map for each, float32 (N, 64, 64), 0
        outside of the region; ``None`` with fewer than two images to fit or none to test.
    """
    fitted = _fitted(rows)
    test = rows[(rows["split"] == "test") & rows["label"].isin(CERTAIN)]
    if len(fitted) < MIN_IMAGES or test.empty:
        return None
    # On the disk: of very many images they need not fit into the memory.
    maps = np.memmap(TemporaryFile(), np.float32, "w+", shape=(len(test), SIDE, SIDE))
    blocks = (
        read_small(images, test["path"].iloc[start : start + BLOCK])
        for start in range(0, len(test), BLOCK)
    )
    found = reconstruction_errors(read_small(images, fitted["path"]), blocks)
    for number, errors in enumerate(found):
        inside = errors if region is None else errors * region.at((SIDE, SIDE))
        maps[number * BLOCK : number * BLOCK + len(errors)] = inside
    return test, maps


def _fitted(rows: pd.DataFrame) -> pd.DataFrame:
    """Good images outside test; of more than `MOST_FITTED` those with the smallest digests."""
    good = rows[(rows["label"] == "good") & rows["split"].isin(GOOD_SPLITS)]
    return good if len(good) <= MOST_FITTED else good.sort_values("sha256").head(MOST_FITTED)


def read_small(images: ImageFolder, paths: Iterable[str]) -> np.ndarray:
    """Read images as float32 (N, 64, 64) grey within 0…1, the whole image stretched (bilinear)."""
    arrays = [
        np.asarray(
            images.read(path).convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR),
            dtype=np.float32,
        )
        for path in paths
    ]
    return np.stack(arrays) / 255


def reconstruction_errors(fitted: np.ndarray, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Smoothed absolute difference to the reconstruction from 60 principal components.

    Args:
        fitted: float32 (M, 64, 64) of good images, M ≥ 2; fewer than 61 give M - 1 components.
        blocks: float32 (N, 64, 64) each.

    Yields:
        For each block float32 (N, 64, 64); an image's score is its maximum.
    """
    from sklearn.decomposition import PCA

    pca = PCA(min(COMPONENTS, len(fitted) - 1), random_state=0)
    pca.fit(fitted.reshape(len(fitted), -1))
    for scored in blocks:
        flat = scored.reshape(len(scored), -1)
        error = np.abs(flat - pca.inverse_transform(pca.transform(flat))).reshape(scored.shape)
        yield ndimage.gaussian_filter(error, (0, SMOOTHING, SMOOTHING)).astype(np.float32)


def _scores(
    maps: np.ndarray, rows: pd.DataFrame, geometry: PreprocessConfig, config: EvaluationConfig
) -> np.ndarray:
    """The maximum of each map; where only the crop decides on the label, that within it."""
    if config.protocol == "strict" or not geometry.crops:
        return maps.max((1, 2))
    cropped = _enlarged(maps, rows, geometry)
    return np.array([cropped[i].max() for i in range(len(cropped))])


def _pixel_metrics(
    test: pd.DataFrame,
    maps: np.ndarray,
    images: ImageFolder,
    geometry: PreprocessConfig,
    config: EvaluationConfig,
    regions: Mapping[str, Region],
) -> Metrics:
    known = with_ground_truth(test)
    if not (known["label"] == "defective").any():
        return dict.fromkeys((*PIXEL_METRICS, "pixel_ap_touched_masks"))
    places = test.index.get_indexer(known.index)
    own = OnDemand(len(places), lambda index: maps[places[index]])
    large = _enlarged(own, known, geometry)
    measured = measure_pixels(large, known, images, geometry, config, regions)
    region = regions.get(known["category"].iloc[0], EVERYTHING)
    inside = region.at((TOUCHED_SIDE, TOUCHED_SIDE))
    touched = [
        None if pd.isna(path) else _touched(images.read_mask(str(path))) & inside
        for path in known["mask_path"]
    ]
    whole = PreprocessConfig(resize=TOUCHED_SIDE, image_size=TOUCHED_SIDE)
    large = _enlarged(own, known, whole)
    counted = OnDemand(len(large), lambda index: np.ma.masked_array(large[index], ~inside))
    reference = pixel_metrics(counted, touched, limit=config.aupro_limit)
    return measured | {"pixel_ap_touched_masks": reference["pixel_ap"]}


def _touched(mask: np.ndarray) -> np.ndarray:
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    small = grey.resize((TOUCHED_SIDE, TOUCHED_SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small) > 0


def _enlarged(maps: Maps, rows: pd.DataFrame, geometry: PreprocessConfig) -> OnDemand[np.ndarray]:
    """Small maps, each brought (bilinear) to the size of the model's."""
    # To stretch makes all images alike.
    sizes = [(1, 1)] * len(maps) if geometry.fit == "stretch" else image_sizes(rows)

    def enlarge(index: int) -> np.ndarray:
        down, across = where = plan(sizes[index], geometry)
        small = Image.fromarray(maps[index])
        large = small.resize((across.scaled, down.scaled), Image.Resampling.BILINEAR)
        return np.asarray(large)[where.content]

    return OnDemand(len(maps), enlarge)
