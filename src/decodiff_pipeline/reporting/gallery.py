"""The report's gallery of test images, ordered by how informative they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
from PIL import Image

from decodiff_pipeline.deco.geometry import to_original
from decodiff_pipeline.deco.regions import full_size_map
from decodiff_pipeline.reporting.pictures import data_uri, fitted, heat, outline

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.evaluation.predictions import PredictionStore

SIDE = 320  # pixels, the longer side of a picture
# Largest size of each picture in bytes: 500 images take at most 20 MB as base64.
INPUT_BYTES, RECONSTRUCTION_BYTES, HEAT_BYTES = 16_000, 9_000, 5_000
MISSED, FALSE_ALARM, DETECTED, PASSED = "missed", "false alarm", "detected", "passed"
WRONG = (MISSED, FALSE_ALARM)


def verdict(label: str, score: float, threshold: float | None) -> str:
    """ "missed", "false alarm", "detected" or "passed"; the label itself if it is "uncertain".

    Args:
        label: "good", "defective" or "uncertain".
        threshold: Smallest score at which an image is flagged; without one the label is returned.
    """
    if threshold is None or label == "uncertain":
        return label
    flagged = score >= threshold
    if label == "defective":
        return DETECTED if flagged else MISSED
    return FALSE_ALARM if flagged else PASSED


def rank_hard_examples(rows: pd.DataFrame, thresholds: Mapping[str, float | None]) -> pd.DataFrame:
    """Order images by how informative they are.

    Wrong decisions come first, those with the largest distance to the threshold at the top. The
    others follow, those closest to the threshold first. Scores of different categories have no
    common scale, so the categories alternate.

    Args:
        rows: Images with ``category``, ``label`` and ``score``.

    Returns:
        The rows in that order, with the column ``verdict``.
    """
    limits = rows["category"].map(thresholds).astype(float)
    columns = zip(rows["label"], rows["score"], rows["category"], strict=True)
    rows = rows.assign(
        verdict=[verdict(label, score, thresholds.get(name)) for label, score, name in columns]
    )
    distance = (rows["score"].astype(float) - limits).abs()
    wrong = rows["verdict"].isin(WRONG)
    # Without a threshold the highest scores come first.
    key = distance.where(~wrong, -distance).fillna(-rows["score"].astype(float))
    ordered = pd.DataFrame({"category": rows["category"], "right": ~wrong, "key": key})
    ordered = ordered.sort_values(["right", "key"], kind="stable")
    turn = ordered.groupby(["category", "right"]).cumcount()
    ordered = ordered.assign(turn=turn).sort_values(["right", "turn", "category"])
    return rows.loc[ordered.index]


@dataclass(frozen=True)
class Item:
    """One image of the gallery; pictures are data URIs."""

    category: str
    path: str  # relative to the raw folder
    label: str
    verdict: str
    defect_type: str  # "" if it is the same as the label
    score: float
    threshold: float | None
    size: tuple[int, int]  # width and height of the pictures in pixels
    input: str
    reconstruction: str
    heat: str  # transparent where the map is low
    outline: str  # SVG path of the ground-truth mask; "" without a mask
    region: str = ""  # SVG path of the scored region; "" if the whole image is scored


@dataclass(frozen=True)
class Gallery:
    """Images in the order of `rank_hard_examples`."""

    items: list[Item]
    total: int  # number of test images


def make_gallery(
    index: pd.DataFrame,
    predictions: PredictionStore,
    images: ImageFolder,
    thresholds: Mapping[str, Any],
    limit: int,
) -> Gallery:
    """Draw the first test images of `rank_hard_examples`, of all categories.

    Args:
        index: Index of the predictions, labelled by the protocol (`protocols.labelled`).
        limit: Largest number of images.
    """
    rows = index[index["split"] == "test"]
    fitted_limits = thresholds["categories"]
    limits = {
        name: fitted_limits.get(name, {}).get("threshold") for name in rows["category"].unique()
    }
    selected = rank_hard_examples(rows, limits).head(limit)
    items: dict[Any, Item] = {}
    for name, group in selected.groupby("category", sort=False):
        pixel_threshold = fitted_limits.get(name, {}).get("pixel_threshold")
        drawn = _items(group, limits[str(name)], pixel_threshold, predictions, images)
        items |= zip(group.index, drawn, strict=True)
    return Gallery([items[position] for position in selected.index], len(rows))


def _items(
    rows: pd.DataFrame,
    threshold: float | None,
    pixel_threshold: float | None,
    predictions: PredictionStore,
    images: ImageFolder,
) -> Iterator[Item]:
    """The items of one category, with a common colour scale."""
    category = str(rows["category"].iloc[0])
    maps, reconstructions = predictions.maps(category), predictions.reconstructions(category)
    geometry, region = predictions.geometry(), predictions.regions().get(category)
    top = 2 * pixel_threshold if pixel_threshold else max(maps[row].max() for row in rows["row"])
    row: Any
    for row in rows.itertuples():
        image = images.read(row.path)
        size = fitted(image.size, SIDE)
        small = image.resize(size, Image.Resampling.LANCZOS)
        reconstruction = to_original(reconstructions[row.row], image.size, geometry, size)
        # Maps are smooth: half the size is enough.
        half = fitted(size, SIDE // 2)
        anomalies = full_size_map(maps[row.row], image.size, geometry, region, half)
        yield Item(
            category=category,
            path=row.path,
            label=row.label,
            verdict=row.verdict,
            defect_type="" if row.defect_type in {"good", row.label} else str(row.defect_type),
            score=float(row.score),
            threshold=threshold,
            size=size,
            input=data_uri(small, INPUT_BYTES),
            reconstruction=data_uri(Image.fromarray(reconstruction), RECONSTRUCTION_BYTES),
            heat=data_uri(heat(anomalies, float(top)), HEAT_BYTES),
            outline=_outline(row, size, images),
            region="" if region is None else outline(region.at(size), size),
        )


def _outline(row: Any, size: tuple[int, int], images: ImageFolder) -> str:
    if row.label == "good" or pd.isna(row.mask_path):
        return ""
    return outline(images.read_mask(row.mask_path), size)
