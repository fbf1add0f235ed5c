"""Test images to look at: input, reconstruction, heat map and the outline of the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
from PIL import Image

from decodiff_pipeline.deco.geometry import to_original
from decodiff_pipeline.reporting.pictures import data_uri, fitted, heat, outline
from decodiff_pipeline.reporting.verdicts import rank_hard_examples

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.evaluation.predictions import PredictionStore

SIDE = 320  # pixels, the longer side of a picture
# Bytes of each picture; those of 500 images are thus at most 20 MB as text, whatever they show.
INPUT_BYTES, RECONSTRUCTION_BYTES, HEAT_BYTES = 16_000, 9_000, 5_000


@dataclass(frozen=True)
class Item:
    """One image of the gallery.

    Attributes:
        category: Of the image.
        path: Of the image below the raw folder.
        label: "good", "defective" or "uncertain".
        verdict: As `verdicts.verdict` gives it.
        defect_type: "" where it says no more than the label.
        score: Of the image.
        threshold: From which score on an image is flagged, if one is known.
        size: Width and height of the pictures in pixels.
        input: Data URI.
        reconstruction: Data URI.
        heat: Data URI, transparent where the map is low.
        outline: Of the ground truth, as the path of an SVG; "" where there is no mask.
    """

    category: str
    path: str
    label: str
    verdict: str
    defect_type: str
    score: float
    threshold: float | None
    size: tuple[int, int]
    input: str
    reconstruction: str
    heat: str
    outline: str


@dataclass(frozen=True)
class Gallery:
    """Items in the order of `verdicts.rank_hard_examples`, and how many were left out.

    Attributes:
        items: What is shown.
        total: Test images there are.
    """

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
        predictions: The scored images.
        images: The raw images.
        thresholds: As `thresholds.fit_thresholds` returns them.
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
    geometry = predictions.geometry()
    top = 2 * pixel_threshold if pixel_threshold else max(maps[row].max() for row in rows["row"])
    row: Any
    for row in rows.itertuples():
        image = images.read(row.path)
        size = fitted(image.size, SIDE)
        small = image.resize(size, Image.Resampling.LANCZOS)
        reconstruction = to_original(reconstructions[row.row], image.size, geometry, size)
        # Maps are smooth: half the size is enough.
        anomalies = to_original(maps[row.row], image.size, geometry, fitted(size, SIDE // 2))
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
        )


def _outline(row: Any, size: tuple[int, int], images: ImageFolder) -> str:
    if row.label == "good" or pd.isna(row.mask_path):
        return ""
    return outline(images.read_mask(row.mask_path), size)
