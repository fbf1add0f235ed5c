"""Parameters of the inference."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from decodiff_pipeline.text import Text

MapFormat = Literal["png16", "tiff", "none"]
Backend = Literal["torch", "onnxruntime"]
Threshold = Annotated[float, Field(ge=0, le=1)]


class InferenceConfig(BaseModel):
    """Parameters of the inference (`conf/*/parameters_inference.yml`).

    Attributes:
        source: Folder of images, or manifest (CSV or parquet); the catalog reads it.
        output: Folder of the results; the catalog reads it.
        category: Category of all images; ``None``: the manifest's column, or the first folder of
            a path; ``auto``: category recognition (docs/recognition.md).
        maps: Format of the maps: ``png16`` (grey, value / 65535), ``tiff`` (float32), or ``none``.
        overlays: Whether to write each image with its heat map and the outlines and boxes of
            flagged regions.
        min_area: Minimum area of a detection, in pixels of the image.
        batch_size: Images per batch.
        backend: ``torch``, or ``onnxruntime`` on the CPU with the model's ONNX export
            (docs/onnx.md).
        thresholds: Category → image threshold, instead of the fitted one.
        pixel_thresholds: Category → pixel threshold, instead of the fitted one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: Text | None = None
    output: Text | None = None
    category: Text | None = None
    maps: MapFormat = "png16"
    overlays: bool = True
    min_area: int = Field(default=1, ge=1)
    batch_size: int = Field(default=16, ge=1)
    backend: Backend = "torch"
    thresholds: dict[Text, Threshold] = Field(default_factory=dict)
    pixel_thresholds: dict[Text, Threshold] = Field(default_factory=dict)
