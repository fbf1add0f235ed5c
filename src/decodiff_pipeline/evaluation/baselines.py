"""Baselines on the same test images: a PCA, and the model's autoencoder alone."""

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
MAX_FITTED = 4096  # images of a category that the PCA is fitted to
BLOCK = 1024  # test images per block
TOUCHED_SIDE = 256
GOOD_SPLITS = ("train", "val", "calibration")


def measure_baselines(
    manifest: pd.DataFrame,
    images: ImageFolder,
    geometry: PreprocessConfig,
    autoencoder: PredictionStore,
    config: EvaluationConfig,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Metrics and scores of both baselines.

    Args:
        autoencoder: Predictions of the autoencoder baseline on the test images.

    Returns:
        ``pca`` (see `PcaBaseline`) and ``autoencoder``: category → metrics, ``None`` if they
        cannot be measured; ``protocol`` and ``resolution``. And a row for each good or defective
        test image: path, category, pca_score, autoencoder_score (float64, NaN if missing).
    """
    pca = pca_baseline(manifest, images, geometry, config, autoencoder.regions())
    index = autoencoder.index()
    table = {}
    for category in sorted(set(manifest["category"])):
        rows = index[index["category"] == category]
        table[category] = _category_metrics(category, rows, autoencoder, images, config)
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


def _category_metrics(
    category: str,
    rows: pd.DataFrame,
    predictions: PredictionStore,
    images: ImageFolder,
    config: EvaluationConfig,
) -> dict[str, Any]:
    if rows.empty:
        return dict.fromkeys((*IMAGE_METRICS, *PIXEL_METRICS))
    index = labelled(rows, images, predictions.geometry(), config.protocol)
    return CategoryEvaluator(category, index, predictions, images, config).metrics()


class PcaBaseline(NamedTuple):
    """The results of the PCA baseline.

    Attributes:
        metrics: Category → metrics of `exact.image_metrics` and `exact.pixel_metrics`,
            ``n_fitted``, and ``pixel_ap_touched_masks``: at 256², with every pixel that a defect
            touches as defective, which is how published baselines were measured and about 10 %
            above the strict value. All ``None`` if a category has fewer than two good images.
        scores: Path → score of each scored good or defective test image.
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
        geometry: The model's geometry, so that the masks are the same as for the model's maps.
        regions: Category → its region; without one the whole image counts.
    """
    regions = regions or {}
    manifest = labelled_inside(manifest, images, regions)
    table: dict[str, dict[str, Any]] = {}
    all_scores: dict[str, float] = {}
    for category, rows in manifest.groupby("category", sort=True):
        result = error_maps(rows, images, regions.get(str(category)))
        metrics: dict[str, Any] = dict.fromkeys(
            (*IMAGE_METRICS, *PIXEL_METRICS, "pixel_ap_touched_masks")
        )
        if result is not None:
            test, maps = result
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

    Returns:
        The rows of the good and defective test images, and their maps, float32 (N, 64, 64), 0
        outside of the region; ``None`` with fewer than two images to fit or no test image.
    """
    fitted = _fitted(rows)
    test = rows[(rows["split"] == "test") & rows["label"].isin(CERTAIN)]
    if len(fitted) < MIN_IMAGES or test.empty:
        return None
    # On disk, since the maps of many images may not fit into memory.
    maps = np.memmap(TemporaryFile(), np.float32, "w+", shape=(len(test), SIDE, SIDE))
    blocks = (
        read_small(images, test["path"].iloc[start : start + BLOCK])
        for start in range(0, len(test), BLOCK)
    )
    for number, errors in enumerate(
        reconstruction_errors(read_small(images, fitted["path"]), blocks)
    ):
        inside = errors if region is None else errors * region.at((SIDE, SIDE))
        maps[number * BLOCK : number * BLOCK + len(errors)] = inside
    return test, maps


def _fitted(rows: pd.DataFrame) -> pd.DataFrame:
    """Good images outside test; at most `MAX_FITTED`, those with the smallest digests."""
    good = rows[(rows["label"] == "good") & rows["split"].isin(GOOD_SPLITS)]
    return good if len(good) <= MAX_FITTED else good.sort_values("sha256").head(MAX_FITTED)


def read_small(images: ImageFolder, paths: Iterable[str]) -> np.ndarray:
    """Read images as grey, stretched to 64x64 (bilinear): float32 (N, 64, 64) within 0…1."""
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
    """The maximum of each map; with the released protocol, the maximum within the crop."""
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
    indices = test.index.get_indexer(known.index)
    known_maps = OnDemand(len(indices), lambda index: maps[indices[index]])
    large = _enlarged(known_maps, known, geometry)
    measured = measure_pixels(large, known, images, geometry, config, regions)
    region = regions.get(known["category"].iloc[0], EVERYTHING)
    inside = region.at((TOUCHED_SIDE, TOUCHED_SIDE))
    paths = [None if pd.isna(path) else str(path) for path in known["mask_path"]]

    def touched(index: int) -> np.ndarray | None:
        path = paths[index]
        return None if path is None else _touched(images.read_mask(path)) & inside

    uncropped = PreprocessConfig(resize=TOUCHED_SIDE, image_size=TOUCHED_SIDE)
    large = _enlarged(known_maps, known, uncropped)
    counted = OnDemand(len(large), lambda index: np.ma.masked_array(large[index], ~inside))
    masks = OnDemand(len(large), touched)
    reference = pixel_metrics(counted, masks, limit=config.aupro_limit)
    return measured | {"pixel_ap_touched_masks": reference["pixel_ap"]}


def _touched(mask: np.ndarray) -> np.ndarray:
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    small = grey.resize((TOUCHED_SIDE, TOUCHED_SIDE), Image.Resampling.BILINEAR)
    return np.asarray(small) > 0


def _enlarged(maps: Maps, rows: pd.DataFrame, geometry: PreprocessConfig) -> OnDemand[np.ndarray]:
    """Maps resized (bilinear) to the size of the model's maps."""
    # With ``stretch`` all images have the same geometry.
    sizes = [(1, 1)] * len(maps) if geometry.fit == "stretch" else image_sizes(rows)

    def enlarge(index: int) -> np.ndarray:
        down, across = layout = plan(sizes[index], geometry)
        small = Image.fromarray(maps[index])
        large = small.resize((across.scaled, down.scaled), Image.Resampling.BILINEAR)
        return np.asarray(large)[layout.content]

    return OnDemand(len(maps), enlarge)
