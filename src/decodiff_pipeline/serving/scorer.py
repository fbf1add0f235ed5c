"""Encoded images in, scores and maps out: what is served, without anything of a server."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from decodiff_pipeline.data.decoding import MAX_PIXELS, decode, require_side
from decodiff_pipeline.data.file_names import nfc
from decodiff_pipeline.deco import loading
from decodiff_pipeline.deco.assembly import decide
from decodiff_pipeline.deco.colour import FULL_DEPTH
from decodiff_pipeline.deco.detections import find_detections
from decodiff_pipeline.deco.device import resolve_device
from decodiff_pipeline.deco.geometry import to_original
from decodiff_pipeline.errors import ConfigurationError, ModelError
from decodiff_pipeline.export.onnx_model import use_onnx
from decodiff_pipeline.serving.dynamic_batching import DynamicBatcher

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from decodiff_pipeline.deco.detections import Detection
    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline

MAP_SCALES = {0: 0, 8: 255, 16: 65535}


@dataclass(frozen=True)
class Answer:
    """What the model says of one image.

    Attributes:
        score: Anomaly score within 0…1; higher is more anomalous.
        threshold: Score from which on the image counts as defective; ``None`` where the category
            had no calibration images and nobody set one.
        threshold_from: Where that is from: ``"request"``, ``"override"``, ``"fitted"``, or
            ``None`` without a threshold.
        decision: ``"defective"``, ``"good"``, or ``None`` without a threshold.
        map: PNG of the anomaly map in the image's own size, grey, 0…1 as 0…255 or 0…65535;
            ``None`` if no map was asked for. What the model's crop cuts off is 0.
        size: Width and height of the image in pixels.
        pixel_threshold: Value of the map from which on a pixel is flagged; ``None`` where the
            category had no calibration images.
        detections: Connected flagged regions in the image's own pixels, the largest first;
            ``None`` without a pixel threshold.
    """

    score: float
    threshold: float | None
    threshold_from: str | None
    decision: str | None
    map: bytes | None
    size: tuple[int, int]
    pixel_threshold: float | None = None
    detections: list[Detection] | None = None


@dataclass(frozen=True)
class _Job:
    """The images of one request: their squares, and a category and a size for each image."""

    squares: torch.Tensor
    categories: list[str]
    sizes: list[tuple[int, int]]


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
        self._computed = DynamicBatcher(self._compute, lambda job: len(job.categories), batch_size)

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
            overrides: See :func:`~.threshold_overrides.read_overrides`; ``None`` for none.
            onnx: See :func:`load_pipeline`.
            **limits: See the class.
        """
        pipeline = load_pipeline(folder, onnx)
        fitted = json.loads(Path(thresholds).read_text(encoding="utf-8"))
        other = None if overrides is None else read_overrides(overrides, pipeline.categories)
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
            categories: The category of each image.
            map_bits: Depth of the map's PNG: 8, 16, or 0 for no map.
            threshold: Of these images, in place of their categories' own.
            min_area: Flagged regions of fewer pixels are no detections.

        Returns:
            An answer for each image, in their order.

        Raises:
            ModelError: There are too many images or none, a category is unknown, the threshold is
                not within 0…1, or ``min_area`` is below 1.
            ImageError: An image is damaged, too large or of an unknown format.
        """
        spelling = {nfc(name): name for name in self.pipeline.categories}
        categories = [spelling.get(nfc(name), name) for name in categories]
        self._check(images, categories, map_bits, threshold)
        if min_area < 1:
            msg = f"min_area is {min_area}; it must be at least 1 pixel"
            raise ModelError(msg)
        sizes, tensors = [], []
        depths = self.pipeline.bit_depths
        for index, (data, category) in enumerate(zip(images, categories, strict=True)):
            # One after the other: only the model's squares of each image are kept.
            name = Path(f"image {index}")
            found = decode(data, name, self._max_pixels, "registration.max_pixels")
            image = found.eight_bit(name, depths.get(category, FULL_DEPTH))
            require_side(image, name)
            sizes.append(image.size)
            tensors.append(self.pipeline.preprocess([image]))
        scored = self._computed(_Job(torch.cat(tensors), list(categories), sizes))
        answers = []
        for category, (score, anomaly_map), size in zip(categories, scored, sizes, strict=True):
            limit, origin = self._threshold(category, threshold)
            pixel = threshold_of(self._thresholds, category, "pixel_threshold")
            png, detections = self._located(anomaly_map, size, pixel, map_bits, min_area)
            decision = decide(score, limit)
            answers.append(Answer(score, limit, origin, decision, png, size, pixel, detections))
        return answers

    def _located(
        self,
        anomaly_map: np.ndarray,
        size: tuple[int, int],
        pixel_threshold: float | None,
        map_bits: int,
        min_area: int,
    ) -> tuple[bytes | None, list[Detection] | None]:
        """The map's PNG and its detections, each ``None`` where there is none."""
        # Interpolation does not exceed the largest value, so most good images are not enlarged.
        flagged = pixel_threshold is not None and anomaly_map.max() >= pixel_threshold
        if not (map_bits or flagged):
            return None, None if pixel_threshold is None else []
        full = to_original(anomaly_map, size, self.pipeline.preprocessing)
        detections = None
        if pixel_threshold is not None:
            detections = find_detections(full, pixel_threshold, min_area)
        return encode_map(full, map_bits) if map_bits else None, detections

    def _compute(self, jobs: Sequence[_Job]) -> list[list[tuple[float, np.ndarray]]]:
        """Score and map of each image of each job."""
        output = self.pipeline(
            torch.cat([job.squares for job in jobs]),
            [category for job in jobs for category in job.categories],
            batch_size=self._batch_size,
            sizes=[size for job in jobs for size in job.sizes],
        )
        scored = zip(output.scores.tolist(), output.anomaly_maps, strict=True)
        return [list(islice(scored, len(job.categories))) for job in jobs]

    def _check(
        self,
        images: Sequence[bytes],
        categories: Sequence[str],
        map_bits: int,
        threshold: float | None,
    ) -> None:
        if not 0 < len(images) <= self._max_images:
            msg = f"the request holds {len(images)} images; send 1 to {self._max_images} at once"
            raise ModelError(msg)
        known = self.pipeline.categories
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
        if threshold is not None and not is_threshold(threshold):
            msg = f"threshold is {threshold}; it must lie within 0…1"
            raise ModelError(msg)

    def _threshold(self, category: str, requested: float | None) -> tuple[float | None, str | None]:
        if requested is not None:
            return requested, "request"
        if category in self._overrides:
            return self._overrides[category], "override"
        fitted = threshold_of(self._thresholds, category)
        return fitted, None if fitted is None else "fitted"


def load_pipeline(folder: Path, onnx: Path | None = None) -> DeCoDiffPipeline:
    """Load a saved pipeline, without progress bars, on the GPU where there is one.

    Args:
        folder: As ``DeCoDiffPipeline.save_pretrained`` wrote it.
        onnx: Its ONNX export, to compute with ONNX Runtime on the CPU.

    Raises:
        ModelError: There is none, or its files are damaged, or the export does not fit it.
        ConfigurationError: See :func:`~.onnx_model.use_onnx`.
    """
    pipeline = loading.load_pipeline(folder)
    if onnx is not None:
        use_onnx(pipeline, onnx, folder)
        return pipeline
    return pipeline.to(resolve_device())


def threshold_of(
    thresholds: Mapping[str, Any], category: str, kind: str = "threshold"
) -> float | None:
    """The category's ``threshold`` or ``pixel_threshold``; ``None`` where it has none."""
    value = thresholds["categories"].get(category, {}).get(kind)
    return None if value is None else float(value)


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


def read_overrides(path: Path, categories: Sequence[str]) -> dict[str, float]:
    """Read a JSON file of image thresholds.

    Args:
        path: ``{category: number}``; categories that it does not name keep the fitted threshold.
        categories: Those that the model knows.

    Raises:
        ConfigurationError: The file cannot be read, names another category, or a threshold is no
            number within 0…1.
    """
    try:
        overrides = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        msg = f'{path} cannot be read ({error}); write it as {{"<category>": 0.5}}'
        raise ConfigurationError(msg) from error
    if not isinstance(overrides, dict):
        msg = f'{path} is no JSON object; write it as {{"<category>": 0.5}}'
        raise ConfigurationError(msg)
    check_overrides(overrides, categories, str(path))
    return overrides


def check_overrides(overrides: Mapping[str, float], categories: Sequence[str], where: str) -> None:
    """Raise where thresholds are not for the model's categories or not within 0…1.

    Args:
        overrides: Category → threshold.
        categories: Those that the model knows.
        where: What to call them in a message: a file or a parameter.

    Raises:
        ConfigurationError: As said.
    """
    for category, value in overrides.items():
        if category not in categories:
            msg = (
                f"{where} names the unknown category {category!r}; "
                f"this model knows {', '.join(categories)}"
            )
            raise ConfigurationError(msg)
        if not is_threshold(value):
            msg = f"{where} has {value!r} for {category!r}; a threshold lies within 0…1"
            raise ConfigurationError(msg)


def is_threshold(value: object) -> bool:
    """Whether a value is a number within 0…1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
