"""Encoded images in, scores and maps out: what is served, without anything of a server."""

from __future__ import annotations

import io
import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from decodiff_pipeline.data.images import MAX_PIXELS, convert, open_image
from decodiff_pipeline.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
    from decodiff_pipeline.deco.preprocess import PreprocessConfig

MAP_SCALES = {0: 0, 8: 255, 16: 65535}


@dataclass(frozen=True)
class Answer:
    """What the model says of one image.

    Attributes:
        score: Anomaly score within 0…1; higher is more anomalous.
        threshold: Score from which on the image counts as defective; ``None`` where the category
            had no calibration images.
        decision: ``"defective"``, ``"good"``, or ``None`` without a threshold.
        map: PNG of the anomaly map in the image's own size, grey, 0…1 as 0…255 or 0…65535;
            ``None`` if no map was asked for. What the model's centre crop cuts off is 0.
    """

    score: float
    threshold: float | None
    decision: str | None
    map: bytes | None


class Scorer:
    """A trained pipeline with its thresholds, answering for one batch at a time.

    Args:
        pipeline: The trained pipeline.
        thresholds: As the evaluation writes them.
        max_images: Most images in one call.
        max_pixels: Most pixels of one image.
        batch_size: Images computed at once.
    """

    def __init__(
        self,
        pipeline: DeCoDiffPipeline,
        thresholds: Mapping[str, Any],
        *,
        max_images: int = 64,
        max_pixels: int = MAX_PIXELS,
        batch_size: int = 16,
    ) -> None:
        self._pipeline = pipeline
        self._thresholds = thresholds
        self._max_images = max_images
        self._max_pixels = max_pixels
        self._batch_size = batch_size
        # A server calls from many threads, and the pipeline's scheduler holds state.
        self._lock = threading.Lock()

    @classmethod
    def from_folder(cls, folder: Path, thresholds: Path, **limits: int) -> Scorer:
        """Load a saved pipeline and the thresholds beside it, on the GPU where there is one.

        Args:
            folder: As ``DeCoDiffPipeline.save_pretrained`` wrote it.
            thresholds: ``thresholds.json`` of the evaluation.
            **limits: See the class.
        """
        from diffusers.utils.logging import disable_progress_bar

        from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline

        disable_progress_bar()
        pipeline = DeCoDiffPipeline.from_pretrained(folder, use_safetensors=True)
        pipeline.set_progress_bar_config(disable=True)
        pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
        return cls(pipeline, json.loads(Path(thresholds).read_text(encoding="utf-8")), **limits)

    def score(
        self, images: Sequence[bytes], categories: Sequence[str], *, map_bits: int = 8
    ) -> list[Answer]:
        """Score encoded images.

        Args:
            images: Files as they are on disk: PNG, JPEG, BMP, TIFF or WebP.
            categories: The category of each image.
            map_bits: Depth of the map's PNG: 8, 16, or 0 for no map.

        Returns:
            An answer for each image, in their order.

        Raises:
            ModelError: There are too many images or none, or a category is unknown.
            ImageError: An image is damaged, too large or of an unknown format.
        """
        self._check(images, categories, map_bits)
        sizes, tensors = [], []
        for index, data in enumerate(images):
            # One after the other: only the model's small square of each image is kept.
            name = Path(f"image {index}")
            image = convert(open_image(data, name, self._max_pixels), name)
            sizes.append(image.size)
            tensors.append(self._pipeline.preprocess([image]))
        with self._lock:
            output = self._pipeline(
                torch.cat(tensors), list(categories), batch_size=self._batch_size
            )
        return [
            self._answer(category, float(score), anomaly_map, size, map_bits)
            for category, score, anomaly_map, size in zip(
                categories, output.scores, output.anomaly_maps, sizes, strict=True
            )
        ]

    def _check(self, images: Sequence[bytes], categories: Sequence[str], map_bits: int) -> None:
        if not 0 < len(images) <= self._max_images:
            msg = f"the request holds {len(images)} images; send 1 to {self._max_images} at once"
            raise ModelError(msg)
        known = self._pipeline.categories
        for index, category in enumerate(categories):
            if category not in known:
                msg = (
                    f"image {index} has the unknown category {category!r}; "
                    f"this model knows {', '.join(known)}"
                )
                raise ModelError(msg)
        if map_bits not in MAP_SCALES:
            msg = f"map_bits is {map_bits}; it must be 0 (no map), 8 or 16"
            raise ModelError(msg)

    def _answer(
        self,
        category: str,
        score: float,
        anomaly_map: np.ndarray,
        size: tuple[int, int],
        map_bits: int,
    ) -> Answer:
        threshold = threshold_of(self._thresholds, category)
        decision = None
        if threshold is not None:
            decision = "defective" if score >= threshold else "good"
        png = None
        if map_bits:
            full = map_on_image(anomaly_map, size, self._pipeline.preprocessing)
            png = encode_map(full, map_bits)
        return Answer(score, threshold, decision, png)


def threshold_of(thresholds: Mapping[str, Any], category: str) -> float | None:
    """The category's threshold; ``None`` where it has none."""
    entry = thresholds.get("categories", thresholds).get(category)
    value = entry.get("threshold") if isinstance(entry, dict) else entry
    return None if value is None else float(value)


def map_on_image(
    anomaly_map: np.ndarray, size: tuple[int, int], geometry: PreprocessConfig
) -> np.ndarray:
    """Bring a map from the model's square back to the image it was made of.

    Args:
        anomaly_map: Float (image_size, image_size) within 0…1.
        size: Width and height of the image in pixels.
        geometry: How the image became the square.

    Returns:
        float32 (height, width) within 0…1, 0 where the centre crop cut the image off.
    """
    after = geometry.resize - geometry.image_size - geometry.margin
    square = np.pad(anomaly_map.astype(np.float32), (geometry.margin, after))
    image = Image.fromarray(square).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image)


def encode_map(anomaly_map: np.ndarray, bits: int) -> bytes:
    """Grey PNG of a map: value · (2^bits - 1), rounded.

    Args:
        anomaly_map: Float (height, width) within 0…1.
        bits: 8 or 16.
    """
    kind = np.uint8 if bits == 8 else np.uint16  # noqa: PLR2004
    grey = np.rint(np.clip(anomaly_map, 0, 1) * MAP_SCALES[bits]).astype(kind)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format="PNG")
    return buffer.getvalue()
