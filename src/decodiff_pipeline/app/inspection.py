"""Uploaded images: scoring as in the server, and HTML of the results."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from decodiff_pipeline.data.bit_depth import depth_of
from decodiff_pipeline.data.decoding import decode
from decodiff_pipeline.deco.geometry import to_original
from decodiff_pipeline.errors import ImageError, ModelError
from decodiff_pipeline.reporting.pictures import data_uri, fitted, heat, outline
from decodiff_pipeline.serving.answer import MAP_SCALES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from decodiff_pipeline.app.served_versions import LoadedVersion
    from decodiff_pipeline.deco.detections import Detection
    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
    from decodiff_pipeline.deco.regions import Region
    from decodiff_pipeline.serving.answer import Answer
    from decodiff_pipeline.serving.scorer import Scorer

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
    width, height = image.size
    scaled = image.convert("RGB").resize(fitted(image.size, SIDE))
    parts = [f'<img src="{data_uri(scaled, BUDGET)}" alt="the image">']
    boxes = ""
    if answer is not None:
        parts.append(_render_heat_map(answer, scaled.size))
        size = height / 24  # font size of the numbers
        boxes = "".join(
            f'<rect x="{box.x}" y="{box.y}" width="{box.width}" height="{box.height}"/>'
            f'<text x="{box.x}" y="{max(box.y, size)}" font-size="{size}">{number}</text>'
            for number, box in enumerate(_largest(answer.detections), start=1)
        )
    if region is not None:
        path, scale = outline(region.at(scaled.size), scaled.size), width / scaled.width
        boxes += f'<path class="counted" transform="scale({scale})" d="{path}"/>'
    parts.append(f'<svg viewBox="0 0 {width} {height}" aria-hidden="true">{boxes}</svg>')
    return (
        f'<div class="window" tabindex="0" aria-label="image with heat map">'
        f'<div class="layers" style="--ratio: {width / height}">{"".join(parts)}</div></div>'
    )


def _render_heat_map(answer: Answer, size: tuple[int, int]) -> str:
    if answer.map is None:
        return ""
    top = min(2 * answer.pixel_threshold, 1.0) if answer.pixel_threshold else 1.0
    values = np.asarray(Image.open(io.BytesIO(answer.map)), np.float32) / MAP_SCALES[MAP_BITS]
    small = np.asarray(Image.fromarray(values).resize(size, Image.Resampling.BILINEAR))
    return f'<img class="heat" src="{data_uri(heat(small, top), BUDGET)}" alt="its heat map">'


def render_picture(image: Image.Image, caption: str) -> str:
    """HTML of an image with a caption."""
    uri = data_uri(image.convert("RGB").resize(fitted(image.size, SIDE)), BUDGET)
    return f'<figure><img src="{uri}" alt=""><figcaption>{escape(caption)}</figcaption></figure>'


def render_detections(answer: Answer) -> str:
    """HTML table of the detections, in pixels of the image."""
    if answer.detections is None:
        return "<p>The category has no pixel threshold, so there are no boxes.</p>"
    if not answer.detections:
        return "<p>No pixel of the map reaches the pixel threshold.</p>"
    rows = "".join(
        f"<tr><td>{number}<td>{box.x}, {box.y}<td>{box.width}, {box.height}<td>{box.area}"
        f"<td>{box.mean_score:.3f}</tr>"
        for number, box in enumerate(_largest(answer.detections), start=1)
    )
    hidden = len(answer.detections) - MOST_BOXES
    more = f"<p>and {hidden} smaller ones</p>" if hidden > 0 else ""
    head = "<tr><th>box<th>x, y<th>width, height<th>area<th>mean of the map</tr>"
    caption = "<caption>Regions above the pixel threshold, in pixels of the image</caption>"
    return f'<div class="scroll"><table>{caption}{head}{rows}</table></div>{more}'


def _largest(detections: Sequence[Detection] | None) -> Sequence[Detection]:
    return (detections or ())[:MOST_BOXES]
