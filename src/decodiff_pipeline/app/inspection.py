"""Uploaded images: scoring as in the server, and HTML of the results."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from decodiff_pipeline.data.bit_depth import depth_of
from decodiff_pipeline.data.decoding import decode
from decodiff_pipeline.deco.geometry import to_original
from decodiff_pipeline.errors import ImageError, ModelError
from decodiff_pipeline.reporting.page import render_macro
from decodiff_pipeline.reporting.pictures import data_uri, fitted, heat, outline
from decodiff_pipeline.serving.answer import MAP_SCALES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from decodiff_pipeline.app.served_versions import LoadedVersion
    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
    from decodiff_pipeline.deco.regions import Region
    from decodiff_pipeline.serving.answer import Answer
    from decodiff_pipeline.serving.scorer import Scorer

TEMPLATE = "app.html.j2"
MAX_FILES = 24
MAX_MEGABYTES = 25  # per file
MAP_BITS = 16
SIDE = 1200  # longest side of an image on the page, in pixels
BUDGET = 300_000  # bytes of an image on the page
MOST_BOXES = 20  # boxes per image on the page


@dataclass(frozen=True)
class InspectionResult:
    """An image and its scores, or the error.

    Attributes:
        data: Content of the image file.
        answer: The server's answer with a 16-bit map; ``None`` if there is an error.
        version: Number of the model version that scored the image.
    """

    name: str
    data: bytes
    answer: Answer | None = None
    error: str = ""
    version: str = ""


def inspect(
    version: LoadedVersion, files: Sequence[tuple[str, bytes]], category: str
) -> list[InspectionResult]:
    """Score files one by one, so that an error in one does not affect the others.

    Args:
        category: Category of all images; ``auto`` for category recognition.

    Raises:
        ImageError: There are no files, or more than ``MAX_FILES``.
    """
    if not 0 < len(files) <= MAX_FILES:
        raise ImageError(f"there are {len(files)} images; send 1 to {MAX_FILES} at once")
    results = [inspect_one(version.scorer, *file, category) for file in files]
    return [replace(result, version=version.number) for result in results]


def inspect_one(scorer: Scorer, name: str, data: bytes, category: str) -> InspectionResult:
    """Score a file; an ImageError or ModelError is stored in ``error``."""
    try:
        return InspectionResult(name, data, scorer.score([data], [category], map_bits=MAP_BITS)[0])
    except (ImageError, ModelError) as error:
        return InspectionResult(name, data, error=str(error).replace("image 0", "the image"))


def decode_image(result: InspectionResult, pipeline: DeCoDiffPipeline) -> Image.Image:
    """Decode the image at the model's bit depth: "L" or "RGB"."""
    category = None if result.answer is None else result.answer.category
    category = category if category in pipeline.categories else None
    decoded, name = decode(result.data, Path(result.name)), Path(result.name)
    return decoded.eight_bit(name, depth_of(category, pipeline, decoded, name))


def reconstruction(image: Image.Image, category: str, pipeline: DeCoDiffPipeline) -> Image.Image:
    """The model's reconstruction of the image, reduced to at most `SIDE` pixels per side."""
    square = pipeline([image], category).reconstructions[0]
    size = fitted(image.size, SIDE)
    return Image.fromarray(to_original(square, image.size, pipeline.preprocessing, size))


def summarise(result: InspectionResult) -> str:
    """One line of text: name, decision, score and threshold, or the error."""
    answer = result.answer
    if answer is None:
        return f"{result.name}: {result.error}"
    if answer.score is None:
        return f"{result.name}: unknown, of none of the model's categories"
    limit = "no threshold" if answer.threshold is None else f"threshold {answer.threshold:.3f}"
    return f"{result.name}: {answer.decision or 'scored'}, {answer.score:.3f} ({limit})"


def render_layers(
    image: Image.Image, answer: Answer | None = None, region: Region | None = None
) -> str:
    """HTML of an image with its heat map and boxes as layers above it.

    Args:
        region: The scored region, drawn as an outline; ``None`` for the whole image.
    """
    scaled = image.convert("RGB").resize(fitted(image.size, SIDE))
    heat_map = None if answer is None or answer.map is None else _heat_map(answer, scaled.size)
    boxes = ((answer and answer.detections) or ())[:MOST_BOXES]
    path = None if region is None else outline(region.at(scaled.size), scaled.size)
    scale, picture = image.width / scaled.width, data_uri(scaled, BUDGET)
    return render_macro(TEMPLATE, "layers", picture, heat_map, image.size, boxes, path, scale)


def _heat_map(answer: Answer, size: tuple[int, int]) -> str:
    top = min(2 * answer.pixel_threshold, 1.0) if answer.pixel_threshold else 1.0
    stored = Image.open(io.BytesIO(answer.map or b""))
    values = np.asarray(stored, np.float32) / MAP_SCALES[MAP_BITS]
    small = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))
    return data_uri(heat(small, top), BUDGET)


def render_details(answer: Answer, reconstruction: Image.Image) -> str:
    """HTML of the verdict, the table of detections in pixels of the image, the reconstruction."""
    picture = data_uri(reconstruction.convert("RGB"), BUDGET)
    return render_macro(TEMPLATE, "details", answer, picture, MOST_BOXES)
