"""Localisation metrics on synthetic defects, for categories without masks.

They show whether maps point at the deviation; they do not measure the detection of real defects.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from decodiff_pipeline.data import splits
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.layouts.base import DEFECTIVE, GOOD
from decodiff_pipeline.data.synthetic_defects import synthetic_defect
from decodiff_pipeline.data.synthetic_images import SyntheticImage, synthetic_images
from decodiff_pipeline.deco.geometry import resize_and_pad
from decodiff_pipeline.deco.regions import Region, with_regions
from decodiff_pipeline.evaluation.predictions import PredictionStore
from decodiff_pipeline.evaluation.protocols import measure_pixels
from decodiff_pipeline.evaluation.scoring import score_images
from decodiff_pipeline.metrics.exact import PIXEL_METRICS

if TYPE_CHECKING:
    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
    from decodiff_pipeline.evaluation.config import EvaluationConfig


def measure_synthetic_localisation(
    model: DeCoDiffPipeline,
    manifest: pd.DataFrame,
    images: ImageFolder,
    config: EvaluationConfig,
) -> dict[str, dict[str, Any]]:
    """Pixel metrics on synthetic defects, for categories that have no mask in test.

    The defects are drawn into good test images; if a category has none, into its calibration
    images. An image always gets the same defect. One category at a time is kept, in a temporary
    folder.

    Args:
        config: ``synthetic_images``, batch size, number of reverse steps, protocol, AUPRO limit.

    Returns:
        Category → ``n`` (number of images), ``split`` of the images, ``protocol``, ``resolution``
        and `exact.PIXEL_METRICS`. Categories with masks are missing; a category without good
        images has ``n`` 0 and ``None``.

    Raises:
        DecodiffError: As of `scoring.score_images`.
    """
    if not config.synthetic_images:
        return {}
    result = {}
    for category, rows in manifest.groupby("category", sort=True):
        test = rows[(rows["split"] == splits.TEST) & (rows["label"] == DEFECTIVE)]
        if test["mask_path"].notna().any():
            continue
        split, chosen = _selected(rows, config.synthetic_images)
        region = _region_of_drawn(model, str(category), rows)
        drawn = DrawnImages(chosen, images, model.preprocessing, region)
        result[str(category)] = {
            "n": len(chosen),
            "split": split,
            "protocol": config.protocol,
            "resolution": config.resolution,
            **_metrics(model, str(category), drawn, config, region),
        }
    return result


class DrawnImages(ImageFolder):
    """An image folder whose images and masks are generated on access.

    Args:
        geometry: Geometry of the model's input; defects are drawn into the resized image.
        region: Region of the generated images that may have defects; ``None`` for all.
    """

    def __init__(
        self,
        chosen: list[SyntheticImage],
        images: ImageFolder,
        geometry: PreprocessConfig,
        region: Region | None = None,
    ) -> None:
        super().__init__(images.path)
        self._chosen = {image.identity: image for image in chosen}
        self._images = images
        self._geometry = geometry
        side = (geometry.resize, geometry.resize)
        self._inside = None if region is None else region.at(side)

    def manifest(self, category: str) -> pd.DataFrame:
        """A row per image, with the manifest's columns that scoring needs."""
        side = self._geometry.resize
        rows = [
            {"category": category, "split": splits.TEST, "label": DEFECTIVE,
             "defect_type": "synthetic", "path": identity, "sha256": identity,
             "mask_path": identity, "width": side, "height": side}
            for identity in self._chosen
        ]  # fmt: skip
        return pd.DataFrame(rows)

    def read(self, relative: str) -> Image.Image:
        """An image with a defect."""
        return Image.fromarray(self._drawn(relative)[0])

    def read_mask(self, relative: str) -> np.ndarray:
        """Its mask, bool (resize, resize)."""
        return self._drawn(relative)[1]

    def _drawn(self, identity: str) -> tuple[np.ndarray, np.ndarray]:
        image = self._chosen[identity]
        square, source = (
            _square(self._images.read(path), self._geometry)
            for path in (image.path, image.source_path)
        )
        return synthetic_defect(square, image.sha256, image.number, source, inside=self._inside)


def _square(image: Image.Image, geometry: PreprocessConfig) -> np.ndarray:
    """The centre of the resized image, uint8 (resize, resize, 3)."""
    padded, side = resize_and_pad(image, geometry), geometry.resize
    top, left = ((length - side) // 2 for length in padded.shape[:2])
    return padded[top : top + side, left : left + side]


def _region_of_drawn(model: DeCoDiffPipeline, category: str, rows: pd.DataFrame) -> Region | None:
    """The region of a category in the generated images, which show the centre of the originals."""
    region = model.regions.get(category)
    if region is None:
        return None
    inside = region.at((int(rows["width"].iloc[0]), int(rows["height"].iloc[0])))
    square = _square(Image.fromarray(inside.astype(np.uint8) * np.uint8(255)), model.preprocessing)
    return Region.of(square[..., 0] > 127, filled=region.filled)  # noqa: PLR2004


def _selected(rows: pd.DataFrame, limit: int) -> tuple[str | None, list[SyntheticImage]]:
    """The first split with good images, and those with the smallest digests."""
    for split in (splits.TEST, splits.CALIBRATION):
        good = rows[(rows["split"] == split) & (rows["label"] == GOOD)]
        if len(good):
            selected = good.drop_duplicates("sha256").sort_values("sha256").head(limit)
            return split, synthetic_images(selected, 1, split)
    return None, []


def _metrics(
    model: DeCoDiffPipeline,
    category: str,
    drawn: DrawnImages,
    config: EvaluationConfig,
    region: Region | None,
) -> dict[str, Any]:
    rows = drawn.manifest(category)
    if rows.empty:
        return dict.fromkeys(PIXEL_METRICS)
    regions = {} if region is None else {category: region}
    with TemporaryDirectory(prefix="synthetic-") as folder, with_regions(model, regions):
        store = PredictionStore(Path(folder) / "predictions")
        score_images(model, rows, drawn, store, config)
        maps, geometry = store.maps(category), model.preprocessing
        return measure_pixels(maps, store.index(), drawn, geometry, config, regions)
