"""Scores the images of a source in batches; an interrupted run resumes."""

from __future__ import annotations

import io
import logging
from contextlib import closing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image
from pydantic import BaseModel

from decodiff_pipeline.data.bit_depth import depth_of
from decodiff_pipeline.data.decoding import decode, require_side
from decodiff_pipeline.data.read_ahead import read_ahead
from decodiff_pipeline.deco.config import UNKNOWN
from decodiff_pipeline.deco.detections import find_detections
from decodiff_pipeline.deco.recognition import recognise, whole_square
from decodiff_pipeline.deco.regions import full_size_map
from decodiff_pipeline.errors import ImageError
from decodiff_pipeline.evaluation.predict import (
    ModelInput,
    batches,
    model_input,
    predict,
    progress,
)
from decodiff_pipeline.inference.config import InferenceConfig
from decodiff_pipeline.inference.overlays import draw_overlay, encode_overlay
from decodiff_pipeline.inference.results import Limits
from decodiff_pipeline.inference.source import InferenceSource, Item
from decodiff_pipeline.inference.store import Journal, map_name, overlay_name
from decodiff_pipeline.serving.answer import encode_map
from decodiff_pipeline.serving.scorer import load_pipeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tqdm import tqdm

    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
    from decodiff_pipeline.evaluation.predict import Prediction
    from decodiff_pipeline.inference.store import Row

logger = logging.getLogger(__name__)

AHEAD = 4  # images that are read ahead


class Loaded(NamedTuple):
    """Data of an image that are needed after its prediction."""

    item: Item
    sha256: str
    image: Image.Image | None  # for the overlay
    whole: np.ndarray | None  # uint8 square of the whole image, for category recognition
    certainty: float | None = None  # of the recognised category


class ScoringJob(BaseModel):
    """Images, model and options of a scoring run, for its processes.

    Attributes:
        items: All images of the source.
        model: Folder of the saved pipeline.
        export: Its ONNX export, if that computes.
        digest: `folder_sha256` of the model.
        known: The model's categories.
        store: Folder of the results.
    """

    items: list[Item]
    source: Path
    model: Path
    export: Path | None
    digest: str
    known: list[str]
    limits: dict[str, Limits]
    store: Path
    config: InferenceConfig
    max_pixels: int


class ScoringRun:
    """Scores images and writes their maps, overlays and rows."""

    def __init__(self, job: ScoringJob, journal: Journal) -> None:
        self.job = job
        self.config = job.config
        self.source = InferenceSource(job.source)
        self.journal = journal
        self.loaded: DeCoDiffPipeline | None = None
        self.lock = Lock()

    def score(self, items: Sequence[Item]) -> int:
        """Score new or changed images; each batch is recorded after its files are written.

        Returns:
            The number of scored images.
        """
        size, scored = self.config.batch_size, 0
        with (
            progress(len(items), "inference") as bar,
            closing(read_ahead(self._read, items, AHEAD)) as results,
        ):
            images = self._readable(results, bar)
            if any(item.category not in self.job.known for item in items):
                images = self._recognised(images, bar)
            first = next(images, None)
            if first is None:
                return 0
            for batch in predict(self._model(), chain([first], images), bar, batch_size=size):
                self.journal.record([self._write(one) for one in batch])
                scored += len(batch)
        return scored

    def _readable(
        self, results: Iterable[ModelInput | Row | None], bar: tqdm
    ) -> Iterator[ModelInput]:
        for result in results:
            if isinstance(result, ModelInput):
                yield result
                continue
            if result is not None:
                self.journal.record([result])
            bar.update()

    def _read(self, item: Item) -> ModelInput | Row | None:
        """Read an image. Returns ``None`` if it is done, and its row if it cannot be read."""
        try:
            data, sha256 = self.source.read(item, self.job.max_pixels)
            if self._is_done(item, sha256):
                return None
            path = self.source.root / item.path
            decoded = decode(data, path, self.job.max_pixels)
            model = self._model()
            category = item.category if item.category in model.categories else None
            image = decoded.eight_bit(path, depth_of(category, model, decoded, path))
            require_side(image, path)
            prepared = model_input(image, item.path, item.category, model.preprocessing)
            whole = None if category else whole_square(image, model.preprocessing)
        except ImageError as error:
            return self._row(item, error=str(error))
        if decoded.note:
            logger.warning("%s: %s; its pixels are scored as they are.", path, decoded.note)
        if not self.config.overlays:
            return replace(prepared, about=Loaded(item, sha256, None, whole))
        pixels = image.width * image.height
        return replace(prepared, about=Loaded(item, sha256, image, whole), kept_pixels=pixels)

    def _recognised(self, images: Iterable[ModelInput], bar: tqdm) -> Iterator[ModelInput]:
        """The images with recognised categories; images of unknown category are recorded."""
        for batch in batches(images, self.config.batch_size):
            wholes = [one.about.whole for one in batch if one.about.whole is not None]
            recognised = iter(recognise(self._model(), wholes) if wholes else [])
            for one in batch:
                if one.about.whole is None:
                    yield one
                    continue
                category, certainty = next(recognised)
                about = one.about._replace(
                    item=replace(one.about.item, category=category or UNKNOWN), certainty=certainty
                )
                if category is not None:
                    yield replace(one, category=category, about=about)
                    continue
                row = self._row(about.item) | {"category_certainty": certainty}
                row |= self._facts(about.sha256, one.size)
                self.journal.record([row])
                bar.update()

    def _model(self) -> DeCoDiffPipeline:
        """The model, loaded on first use."""
        with self.lock:
            if self.loaded is None:
                self.loaded = load_pipeline(self.job.model, self.job.export)
        return self.loaded

    def _write(self, prediction: Prediction) -> Row:
        item, sha256, image, _, certainty = prediction.image.about
        size, score = prediction.image.size, float(prediction.score)
        model = self._model()
        region = model.regions.get(item.category)
        full = full_size_map(prediction.anomaly_map, size, model.preprocessing, region)
        limit = self.job.limits[item.category].pixel
        detections = None if limit is None else find_detections(full, limit, self.config.min_area)
        row = self._row(item) | self._facts(sha256, size) | self._files(item)
        row |= {
            "category_certainty": certainty,
            "score": score,
            "pixel_threshold": limit,
            "flagged_pixels": None if limit is None else int((full >= limit).sum()),
            "detections": None if detections is None else [one._asdict() for one in detections],
        }
        if row["map"] is not None:
            self.journal.save(row["map"], _encoded(full, self.config.maps))
        if row["overlay"] is not None and image is not None:
            overlay = draw_overlay(image, full, limit, detections or ())
            self.journal.save(row["overlay"], encode_overlay(overlay))
        return row

    def _is_done(self, item: Item, sha256: str) -> bool:
        row = self.journal.rows.get(item.path)
        if row is None or row["error"] is not None:
            return False
        recognised = row.get("category_certainty") is not None
        if recognised != (item.category not in self.job.known):
            return False
        if recognised and row["score"] is None:
            return row["sha256"] == sha256 and row["model_sha256"] == self.job.digest
        if recognised:
            item = replace(item, category=row["category"])
        expected = self._row(item) | self._files(item)
        expected |= {"sha256": sha256, "pixel_threshold": self.job.limits[item.category].pixel}
        keys = ("category", "sha256", "model_sha256", "pixel_threshold", "min_area")
        return (
            all(row.get(key) == expected[key] for key in (*keys, "map", "overlay"))
            and self.journal.is_there(row["map"])
            and self.journal.is_there(row["overlay"])
        )

    def _files(self, item: Item) -> Row:
        overlay = overlay_name(item.path) if self.config.overlays else None
        return {"map": map_name(item.path, self.config.maps), "overlay": overlay}

    def _facts(self, sha256: str, size: tuple[int, int]) -> Row:
        return {"sha256": sha256, "width": size[0], "height": size[1]}

    def _row(self, item: Item, error: str | None = None) -> Row:
        measured = (
            *("category_certainty", "sha256", "width", "height", "score"),
            *("pixel_threshold", "flagged_pixels", "detections"),
        )
        return {
            "path": item.path,
            "category": item.category,
            **dict.fromkeys([*measured, "map", "overlay"]),
            "model_sha256": self.job.digest,
            "min_area": self.config.min_area,
            "error": error,
        }


def _encoded(anomaly_map: np.ndarray, kind: str) -> bytes:
    if kind == "png16":
        return encode_map(anomaly_map, 16)
    buffer = io.BytesIO()
    exact = Image.fromarray(anomaly_map.astype(np.float32))
    exact.save(buffer, format="TIFF", compression="tiff_deflate")
    return buffer.getvalue()
