"""Encoded images in, scores and maps out: what is served, without anything of a server."""

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
from decodiff_pipeline.deco.config import AUTO, UNKNOWN
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
    """An image of a request: its squares, and all of it in one where no category is given."""

    size: tuple[int, int]
    squares: torch.Tensor
    category: str | None
    whole: np.ndarray | None


class _Scored(NamedTuple):
    """The category of an image, given or recognised; where there is one, its score and map."""

    category: str | None
    certainty: float | None
    score: float | None = None
    map: np.ndarray | None = None


class Scorer:
    """A trained pipeline with its thresholds, answering many threads in batches.

    Args:
        pipeline: The trained pipeline.
        thresholds: As the evaluation writes them.
        overrides: Category → image threshold in place of the fitted one.
        max_images: Most images in one call.
        max_pixels: Most pixels of one image.
        batch_size: Images computed at once.
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
        # A server calls from many threads, and the pipeline's scheduler holds state.
        self._computed = DynamicBatcher(self._compute, len, batch_size)

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
        """Load a saved pipeline and the thresholds beside it, on the GPU where there is one.

        Args:
            folder: As ``DeCoDiffPipeline.save_pretrained`` wrote it.
            thresholds: ``thresholds.json`` of the evaluation.
            overrides: See :func:`.thresholds.read_overrides`; ``None`` for none.
            onnx: See :func:`load_pipeline`.
            **limits: See the class.
        """
        pipeline = load_pipeline(folder, onnx)
        fitted = json.loads(Path(thresholds).read_text(encoding="utf-8"))
        other = None
        if overrides is not None:
            other = read_overrides(overrides, pipeline.categories, folder_sha256(folder))
        return cls(pipeline, fitted, overrides=other, **limits)

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
            images: Files as they are on disk: PNG, JPEG, BMP, TIFF or WebP.
            categories: The category of each image; ``auto``, unless the model has a category of
                that name: it is recognised.
            map_bits: Depth of the map's PNG: 8, 16, or 0 for no map.
            threshold: Of these images, in place of their categories' own.
            min_area: Flagged regions of fewer pixels are no detections.

        Returns:
            An answer for each image, in their order.

        Raises:
            ModelError: There are too many images or none, a category is unknown or cannot be
                recognised, the threshold is not within 0…1, or ``min_area`` is below 1.
            ImageError: An image is damaged, too large or of an unknown format.
        """
        spelling = {nfc(name): name for name in self.pipeline.categories}
        categories = [spelling.get(nfc(name), name) for name in categories]
        self._check(images, categories, map_bits, threshold)
        if min_area < 1:
            raise ModelError(f"min_area is {min_area}; it must be at least 1 pixel")
        # One after the other: only the model's squares of each image are kept.
        inputs = [
            self._input(data, Path(f"image {index}"), category)
            for index, (data, category) in enumerate(zip(images, categories, strict=True))
        ]
        return [
            self._answer(found, image.size, threshold, map_bits, min_area)
            for image, found in zip(inputs, self._computed(inputs), strict=True)
        ]

    def threshold(self, category: str) -> float | None:
        """The image threshold in force of a category; ``None`` where it has none."""
        return deciding_threshold(category, self._thresholds, self._overrides, requested=None)[0]

    def _input(self, data: bytes, name: Path, category: str) -> _Input:
        given = category if category in self.pipeline.categories else None
        found = decode(data, name, self._max_pixels, "registration.max_pixels")
        image = found.eight_bit(name, depth_of(given, self.pipeline, found, name))
        require_side(image, name)
        squares = self.pipeline.preprocess([image])
        whole = None if given else whole_square(image, self.pipeline.preprocessing)
        return _Input(image.size, squares, given, whole)

    def _answer(
        self,
        found: _Scored,
        size: tuple[int, int],
        threshold: float | None,
        map_bits: int,
        min_area: int,
    ) -> Answer:
        if found.category is None or found.score is None or found.map is None:
            return Answer(
                score=None,
                threshold=None,
                threshold_from=None,
                decision=UNKNOWN,
                map=None,
                size=size,
                category=UNKNOWN,
                category_certainty=found.certainty,
            )
        limit, origin = deciding_threshold(
            found.category, self._thresholds, self._overrides, requested=threshold
        )
        pixel = threshold_of(self._thresholds, found.category, "pixel_threshold")
        region = self.pipeline.regions.get(found.category)
        png, detections = self._located(found.map, size, region, pixel, map_bits, min_area)
        return Answer(
            score=found.score,
            threshold=limit,
            threshold_from=origin,
            decision=decide(found.score, limit),
            map=png,
            size=size,
            pixel_threshold=pixel,
            detections=detections,
            category=found.category,
            category_certainty=found.certainty,
        )

    def _located(
        self,
        anomaly_map: np.ndarray,
        size: tuple[int, int],
        region: Region | None,
        pixel_threshold: float | None,
        map_bits: int,
        min_area: int,
    ) -> tuple[bytes | None, list[Detection] | None]:
        """The map's PNG and its detections, each ``None`` where there is none."""
        # Interpolation does not exceed the largest value, so most good images are not enlarged.
        flagged = pixel_threshold is not None and anomaly_map.max() >= pixel_threshold
        if not (map_bits or flagged):
            return None, None if pixel_threshold is None else []
        full = full_size_map(anomaly_map, size, self.pipeline.preprocessing, region)
        detections = None
        if pixel_threshold is not None:
            detections = find_detections(full, pixel_threshold, min_area)
        return encode_map(full, map_bits) if map_bits else None, detections

    def _compute(self, jobs: Sequence[Sequence[_Input]]) -> list[list[_Scored]]:
        """What the model says of each image of each request."""
        images = [image for job in jobs for image in job]
        unnamed = [image.whole for image in images if image.whole is not None]
        recognised = iter(recognise(self.pipeline, unnamed) if unnamed else [])
        results = [
            _Scored(image.category, None) if image.whole is None else _Scored(*next(recognised))
            for image in images
        ]
        known = {number: one.category for number, one in enumerate(results) if one.category}
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
    """Load a saved pipeline, without progress bars, on the GPU where there is one.

    Args:
        folder: As ``DeCoDiffPipeline.save_pretrained`` wrote it.
        onnx: Its ONNX export, to compute with ONNX Runtime on the CPU.

    Raises:
        ModelError: There is none, or its files are damaged, or the export does not fit it.
        ConfigurationError: See :func:`~.onnx_model.use_onnx`.
    """
    keep_freed_memory()
    pipeline = loading.load_pipeline(folder)
    if onnx is not None:
        use_onnx(pipeline, onnx, folder)
        return pipeline
    return pipeline.to(resolve_device())
