"""Scores encoded images with a saved pipeline, independently of the server."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from decodiff_pipeline.data.bit_depth import depth_of
from decodiff_pipeline.data.decoding import MAX_PIXELS, decode, require_side
from decodiff_pipeline.data.file_names import nfc
from decodiff_pipeline.deco import loading
from decodiff_pipeline.deco.assembly import decide
from decodiff_pipeline.deco.config import AUTO
from decodiff_pipeline.deco.detections import find_detections
from decodiff_pipeline.deco.device import keep_freed_memory, resolve_device
from decodiff_pipeline.deco.digests import folder_sha256
from decodiff_pipeline.deco.recognition import recognise, whole_square, without_recogniser
from decodiff_pipeline.deco.regions import full_size_map
from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.export.onnx_model import use_onnx
from decodiff_pipeline.serving.answer import MAP_SCALES, Answer, encode_map
from decodiff_pipeline.serving.dynamic_batching import DynamicBatcher
from decodiff_pipeline.serving.thresholds import (
    deciding_threshold,
    is_threshold,
    read_overrides,
    threshold_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np

    from decodiff_pipeline.deco.detections import Detection
    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
    from decodiff_pipeline.deco.regions import Region


class _Input(NamedTuple):
    """A preprocessed image of a request."""

    size: tuple[int, int]  # width and height in pixels
    squares: torch.Tensor
    category: str | None  # None if it is to be recognised
    whole: np.ndarray | None  # the whole image in one square, if the category is to be recognised


class _Scored(NamedTuple):
    """The given or recognised category of an image; with a category, its score and map."""

    category: str | None
    certainty: float | None
    score: float | None = None
    map: np.ndarray | None = None


class Scorer:
    """A trained pipeline with its thresholds; thread-safe, with dynamic batching.

    Args:
        thresholds: Content of the evaluation's ``thresholds.json``.
        overrides: Category → image threshold that replaces the fitted one.
    """

    def __init__(
        self,
        pipeline: DeCoDiffPipeline,
        thresholds: Mapping[str, Any],
        *,
        overrides: Mapping[str, float] | None = None,
        max_images: int = 64,
        max_pixels: int = MAX_PIXELS,
        batch_size: int = 16,
    ) -> None:
        self.pipeline = pipeline
        self._thresholds = thresholds
        self._overrides = overrides or {}
        self._max_images = max_images
        self._max_pixels = max_pixels
        self._batch_size = batch_size
        # The pipeline's scheduler has state, so concurrent requests must not call it directly.
        self._score_batched = DynamicBatcher(self._compute, len, batch_size)

    @classmethod
    def from_folder(
        cls,
        folder: Path,
        thresholds: Path,
        *,
        overrides: Path | None = None,
        onnx: Path | None = None,
        **limits: int,
    ) -> Scorer:
        """Load a saved pipeline and its thresholds, onto the GPU if there is one.

        Args:
            folder: See ``DeCoDiffPipeline.save_pretrained``.
            thresholds: ``thresholds.json`` of the evaluation.
            overrides: See :func:`.thresholds.read_overrides`.
            onnx: See :func:`load_pipeline`.
            **limits: ``max_images``, ``max_pixels`` and ``batch_size`` of the class.
        """
        pipeline = load_pipeline(folder, onnx)
        fitted = json.loads(Path(thresholds).read_text(encoding="utf-8"))
        override_values = None
        if overrides is not None:
            override_values = read_overrides(overrides, pipeline.categories, folder_sha256(folder))
        return cls(pipeline, fitted, overrides=override_values, **limits)

    def score(
        self,
        images: Sequence[bytes],
        categories: Sequence[str],
        *,
        map_bits: int = 8,
        threshold: float | None = None,
        min_area: int = 1,
    ) -> list[Answer]:
        """Score encoded images.

        Args:
            images: Encoded files: PNG, JPEG, BMP, TIFF or WebP.
            categories: The category of each image. ``auto`` recognises the category, unless the
                model has a category of that name.
            map_bits: Bit depth of the map's PNG: 8, 16, or 0 for no map.
            threshold: Replaces the thresholds of the categories.
            min_area: Smallest area of a detection in pixels.

        Returns:
            A result for each image, in their order.

        Raises:
            ModelError: There are too many images or none, a category is unknown or cannot be
                recognised, the threshold is not within 0…1, or ``min_area`` is below 1.
            ImageError: An image is damaged, too large or of an unsupported format.
        """
        spelling = {nfc(name): name for name in self.pipeline.categories}
        categories = [spelling.get(nfc(name), name) for name in categories]
        self._check(images, categories, map_bits, threshold)
        if min_area < 1:
            raise ModelError(f"min_area is {min_area}; it must be at least 1 pixel")
        # Sequentially, so that only one decoded image is in memory beside the models' squares.
        inputs = [
            self._preprocess(data, Path(f"image {index}"), category)
            for index, (data, category) in enumerate(zip(images, categories, strict=True))
        ]
        return [
            self._answer(scored, image.size, threshold, map_bits, min_area)
            for image, scored in zip(inputs, self._score_batched(inputs), strict=True)
        ]

    def threshold(self, category: str) -> float | None:
        """The image threshold of a category, overridden or fitted; ``None`` if it has none."""
        return deciding_threshold(category, self._thresholds, self._overrides, requested=None)[0]

    def _preprocess(self, data: bytes, name: Path, category: str) -> _Input:
        given = category if category in self.pipeline.categories else None
        decoded = decode(data, name, self._max_pixels, "registration.max_pixels")
        image = decoded.eight_bit(name, depth_of(given, self.pipeline, decoded, name))
        require_side(image, name)
        squares = self.pipeline.preprocess([image])
        whole = None if given else whole_square(image, self.pipeline.preprocessing)
        return _Input(image.size, squares, given, whole)

    def _answer(
        self,
        scored: _Scored,
        size: tuple[int, int],
        threshold: float | None,
        map_bits: int,
        min_area: int,
    ) -> Answer:
        if scored.category is None or scored.score is None or scored.map is None:
            return Answer(size, category_certainty=scored.certainty)
        limit, origin = deciding_threshold(
            scored.category, self._thresholds, self._overrides, requested=threshold
        )
        pixel = threshold_of(self._thresholds, scored.category, "pixel_threshold")
        region = self.pipeline.regions.get(scored.category)
        png, detections = self._localise(scored.map, size, region, pixel, map_bits, min_area)
        return Answer(
            size,
            category=scored.category,
            category_certainty=scored.certainty,
            decision=decide(scored.score, limit),
            score=scored.score,
            threshold=limit,
            threshold_from=origin,
            map=png,
            pixel_threshold=pixel,
            detections=detections,
        )

    def _localise(
        self,
        anomaly_map: np.ndarray,
        size: tuple[int, int],
        region: Region | None,
        pixel_threshold: float | None,
        map_bits: int,
        min_area: int,
    ) -> tuple[bytes | None, list[Detection] | None]:
        """The map's PNG (``None`` if not requested) and the detections (without a threshold)."""
        # Interpolation never exceeds the maximum, so maps without a flagged pixel stay small.
        flagged = pixel_threshold is not None and anomaly_map.max() >= pixel_threshold
        if not (map_bits or flagged):
            return None, None if pixel_threshold is None else []
        full = full_size_map(anomaly_map, size, self.pipeline.preprocessing, region)
        detections = None
        if pixel_threshold is not None:
            detections = find_detections(full, pixel_threshold, min_area)
        return encode_map(full, map_bits) if map_bits else None, detections

    def _compute(self, jobs: Sequence[Sequence[_Input]]) -> list[list[_Scored]]:
        """Recognise categories and score the images of several requests as one batch."""
        images = [image for job in jobs for image in job]
        to_recognise = [image.whole for image in images if image.whole is not None]
        recognised = iter(recognise(self.pipeline, to_recognise) if to_recognise else [])
        results = [
            _Scored(image.category, None) if image.whole is None else _Scored(*next(recognised))
            for image in images
        ]
        known = {n: result.category for n, result in enumerate(results) if result.category}
        if known:
            output = self.pipeline(
                torch.cat([images[number].squares for number in known]),
                list(known.values()),
                batch_size=self._batch_size,
                sizes=[images[number].size for number in known],
            )
            scored = zip(known, output.scores.tolist(), output.anomaly_maps, strict=True)
            for number, score, anomaly_map in scored:
                results[number] = results[number]._replace(score=score, map=anomaly_map)
        remaining = iter(results)
        return [list(islice(remaining, len(job))) for job in jobs]

    def _check(
        self,
        images: Sequence[bytes],
        categories: Sequence[str],
        map_bits: int,
        threshold: float | None,
    ) -> None:
        if not 0 < len(images) <= self._max_images:
            raise ModelError(
                f"the request holds {len(images)} images; send 1 to {self._max_images} at once"
            )
        known = self.pipeline.categories
        for index, category in enumerate(categories):
            if category == AUTO and AUTO not in known:
                if self.pipeline.recogniser is None:
                    raise ModelError(f"image {index} has no category: {without_recogniser(known)}")
            elif category not in known:
                msg = (
                    f"image {index} has the unknown category {category!r}; "
                    f"this model knows {', '.join(known)}"
                )
                raise ModelError(msg)
        if map_bits not in MAP_SCALES:
            raise ModelError(f"map_bits is {map_bits}; it must be 0 (no map), 8 or 16")
        if threshold is not None and not is_threshold(threshold):
            raise ModelError(f"threshold is {threshold}; it must lie within 0…1")


def load_pipeline(folder: Path, onnx: Path | None = None) -> DeCoDiffPipeline:
    """Load a saved pipeline onto the GPU if there is one.

    Args:
        folder: See ``DeCoDiffPipeline.save_pretrained``.
        onnx: ONNX export of the pipeline, to compute with ONNX Runtime on the CPU instead.

    Raises:
        ModelError: The pipeline is missing or damaged, or the export is of another model.
        ConfigurationError: See :func:`~.onnx_model.use_onnx`.
    """
    keep_freed_memory()
    pipeline = loading.load_pipeline(folder)
    if onnx is not None:
        use_onnx(pipeline, onnx, folder)
        return pipeline
    return pipeline.to(resolve_device())
