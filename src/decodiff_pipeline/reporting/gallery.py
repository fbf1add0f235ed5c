"""Test images to look at, those first that tell most: input, reconstruction, heat map, truth."""

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
# Bytes of each picture; those of 500 images are thus at most 20 MB as text, whatever they show.
INPUT_BYTES, RECONSTRUCTION_BYTES, HEAT_BYTES = 16_000, 9_000, 5_000
MISSED, FALSE_ALARM, DETECTED, PASSED = "missed", "false alarm", "detected", "passed"
WRONG = (MISSED, FALSE_ALARM)


def verdict(label: str, score: float, threshold: float | None) -> str:
    """One of the four verdicts; the label itself where it is uncertain or no threshold is known.

    Args:
        label: "good", "defective" or "uncertain".
        threshold: From which score on an image is flagged.
    """
    if threshold is None or label == "uncertain":
        return label
    flagged = score >= threshold
    if label == "defective":
        return DETECTED if flagged else MISSED
    return FALSE_ALARM if flagged else PASSED


def rank_hard_examples(rows: pd.DataFrame, thresholds: Mapping[str, float | None]) -> pd.DataFrame:
    """Order images so that whoever stops looking early has seen what matters.

    Wrong decisions come first, those furthest on the wrong side of the threshold at the head;
    then the others, closest to the threshold first. Scores of two categories have no common
    scale, so categories take turns.

    Args:
        rows: Images with ``category``, ``label`` and ``score``.

    Returns:
        The rows in that order, with the column ``verdict``.
    """
    limits = rows["category"].map(thresholds).astype(float)
    facts = zip(rows["label"], rows["score"], rows["category"], strict=True)
    rows = rows.assign(
        verdict=[verdict(label, score, thresholds.get(name)) for label, score, name in facts]
    )
    distance = (rows["score"].astype(float) - limits).abs()
    wrong = rows["verdict"].isin(WRONG)
    # Without a threshold the highest scores tell most.
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
    path: str  # below the raw folder
    label: str
    verdict: str
    defect_type: str  # "" where it says no more than the label
    score: float
    threshold: float | None
    size: tuple[int, int]  # of the pictures, in pixels
    input: str
    reconstruction: str
    heat: str  # transparent where the map is low
    outline: str  # of the ground truth, as the path of an SVG; "" where there is no mask
    region: str = ""  # outline of what counts, the same; "" where all of the image does


@dataclass(frozen=True)
class Gallery:
    """Items in the order of `rank_hard_examples`, and how many test images there are."""

    items: list[Item]
    total: int


def make_gallery(
    index: pd.DataFrame,
    predictions: PredictionStore,
    images: ImageFolder,
    thresholds: Mapping[str, Any],
    limit: int,
) -> Gallery:
    """Draw the most telling test images of all categories.

    Args:
        index: Of the predictions, labelled by the protocol (`protocols.labelled`).
        limit: Images at most.
    """
    rows = index[index["split"] == "test"]
    known = thresholds["categories"]
    limits = {name: known.get(name, {}).get("threshold") for name in rows["category"].unique()}
    chosen = rank_hard_examples(rows, limits).head(limit)
    drawn: dict[Any, Item] = {}
    for name, group in chosen.groupby("category", sort=False):
        pixel_threshold = known.get(name, {}).get("pixel_threshold")
        items = _items(group, limits[str(name)], pixel_threshold, predictions, images)
        drawn |= zip(group.index, items, strict=True)
    return Gallery([drawn[position] for position in chosen.index], len(rows))


def _items(
    rows: pd.DataFrame,
    threshold: float | None,
    pixel_threshold: float | None,
    predictions: PredictionStore,
    images: ImageFolder,
) -> Iterator[Item]:
    """The items of one category, on one scale of colours."""
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
