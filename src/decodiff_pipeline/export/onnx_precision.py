"""Converts an ONNX export to float16 or INT8 and compares its metrics with float32."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from decodiff_pipeline.data import splits
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.layouts.base import DEFECTIVE, GOOD
from decodiff_pipeline.errors import ConfigurationError, ModelError
from decodiff_pipeline.evaluation.assessment import plain_metrics
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.evaluation.predictions import PredictionStore
from decodiff_pipeline.evaluation.scoring import score_images
from decodiff_pipeline.evaluation.synthetic_localisation import measure_synthetic_localisation
from decodiff_pipeline.export.onnx_model import PARTS, Part, Session, attach

if TYPE_CHECKING:
    import torch

    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline

Precision = Literal["float32", "float16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16", "int8")
# Largest difference of a category's metrics from float32.
LIMITS = {"image_auroc": 0.002, "pixel_ap": 0.005}
# INT8 latents change the scores too much; the decoder is less sensitive.
PARTS_OF: dict[Precision, tuple[Part, ...]] = {"float16": PARTS, "int8": ("decoder",)}
CALIBRATION_IMAGES = 32
LARGE = 1_500_000_000  # bytes; the limit of a protobuf file is 2 GB


@dataclass(frozen=True)
class Conversion:
    """A conversion of a float32 export, and the images on which it is evaluated.

    Attributes:
        precision: ``float16`` or ``int8``.
        parts: Parts to convert; the others stay float32.
        manifest: The validated manifest, or its rows of some categories.
        test_images: Largest number of test images per category and label.
    """

    precision: Precision
    parts: tuple[Part, ...]
    manifest: pd.DataFrame
    images: ImageFolder
    test_images: int = 100


class Measured(NamedTuple):
    """Metrics by category, and the score of each test image."""

    metrics: dict[str, dict[str, Any]]
    scores: np.ndarray  # float (N,)


def read_conversion(
    precision: Precision,
    parts: tuple[Part, ...],
    manifest: Path | None,
    images: Path | None,
    test_images: int,
) -> Conversion:
    """The conversion that the command line specifies.

    Raises:
        ConfigurationError: Manifest or images are missing or cannot be read.
    """
    if manifest is None or images is None:
        raise ConfigurationError(
            f"--precision {precision} is evaluated on labelled images: give --manifest "
            "data/03_primary/DATASET/manifest.parquet --images data/01_raw/DATASET"
        )
    try:
        table = pd.read_parquet(manifest)
    except (OSError, ValueError) as error:  # base classes of pyarrow's errors
        raise ConfigurationError(
            f"--manifest {manifest} cannot be read ({type(error).__name__}: {error})"
        ) from error
    if missing := {"category", "split", "label", "path", "sha256", "mask_path"} - set(table):
        raise ConfigurationError(
            f"--manifest {manifest} has no column {', '.join(sorted(missing))}; name the one in "
            "data/03_primary"
        )
    if test_images < 1:
        raise ConfigurationError(f"--test-images is {test_images}; it must be at least 1")
    return Conversion(
        precision, parts or PARTS_OF[precision], table, ImageFolder(images), test_images
    )


def convert(pipeline: DeCoDiffPipeline, folder: Path, conversion: Conversion) -> dict[str, Any]:
    """Convert parts of a float32 export in place and compare the metrics.

    Args:
        pipeline: The model; it uses the float32 export before and the converted one afterwards.

    Returns:
        Entries of ``onnx.json``: ``precision``, ``parts``, ``metrics`` (precision → category →
        metric) and ``largest_score_difference``.

    Raises:
        ConfigurationError: The manifest has no good training image or no test image of the model's
            categories.
        ModelError: The metrics differ by more than `LIMITS`.
    """
    expected = _evaluate(pipeline, conversion)
    feeds = (
        _calibration_data(pipeline, folder, conversion) if conversion.precision == "int8" else {}
    )
    for part in conversion.parts:
        _convert_part(folder, part, feeds.get(part))
    attach(pipeline, folder)
    converted = _evaluate(pipeline, conversion)
    _require_parity(converted, expected, conversion.precision)
    return {
        "precision": conversion.precision,
        "parts": list(conversion.parts),
        "metrics": {"float32": expected.metrics, conversion.precision: converted.metrics},
        "largest_score_difference": float(np.abs(converted.scores - expected.scores).max()),
    }


def _convert_part(folder: Path, part: Part, feeds: list[dict[str, np.ndarray]] | None) -> None:
    """Convert to INT8 if there are calibration inputs, else to float16."""
    import onnx

    path = folder / f"{part}.onnx"
    if feeds is not None:
        model = _int8(path, feeds)
    else:
        from onnxruntime.transformers.float16 import convert_float_to_float16

        model = convert_float_to_float16(onnx.load(path), keep_io_types=True)
    for file in folder.glob(f"{part}.onnx*"):
        file.unlink()
    onnx.save(
        model, path, save_as_external_data=model.ByteSize() > LARGE, location=f"{path.name}.data"
    )


class _Recorder(Session):
    def __init__(self, folder: Path, part: Part) -> None:
        super().__init__(folder, part)
        self.feeds: list[dict[str, np.ndarray]] = []

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        names = self._shapes
        self.feeds.append({n: i.numpy().copy() for n, i in zip(names, inputs, strict=True)})
        return super().__call__(*inputs)


def _calibration_data(
    pipeline: DeCoDiffPipeline, folder: Path, data: Conversion
) -> dict[Part, list[dict[str, np.ndarray]]]:
    """The inputs of each part when the model scores good training images."""
    rows = data.manifest[
        (data.manifest["split"] == splits.TRAIN)
        & (data.manifest["label"] == GOOD)
        & data.manifest["category"].isin(pipeline.categories)
    ].sort_values("sha256")
    if rows.empty:
        raise ConfigurationError(
            "the manifest has no good training image of the model's categories "
            f"({', '.join(pipeline.categories)}); name the manifest that the model was trained on"
        )
    per_category = -(-CALIBRATION_IMAGES // rows["category"].nunique())
    rows = rows.groupby("category").head(per_category)
    recorders: dict[Part, _Recorder] = {}

    def recorder(folder: Path, part: Part) -> _Recorder:
        return recorders.setdefault(part, _Recorder(folder, part))

    attach(pipeline, folder, recorder)
    for path, category in zip(rows["path"], rows["category"], strict=True):
        pipeline([data.images.read(path)], [category])
    return {part: session.feeds for part, session in recorders.items()}


def _int8(path: Path, feeds: list[dict[str, np.ndarray]]) -> Any:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static

    graph = onnx.load(path, load_external_data=False).graph
    convolutions = [node.name for node in graph.node if node.op_type == "Conv"]
    with TemporaryDirectory(dir=path.parent) as folder:
        target = Path(folder) / path.name
        quantize_static(
            path,
            target,
            SimpleNamespace(get_next=partial(next, iter(feeds), None)),  # as CalibrationDataReader
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv", "Gemm", "MatMul"],
            # Quantising the last layers costs the demo's model 0.01 pixel AP and saves little time.
            nodes_to_exclude=convolutions[:1] + convolutions[-2:],
            use_external_data_format=path.stat().st_size > LARGE,
        )
        return onnx.load(target)


def _evaluate(pipeline: DeCoDiffPipeline, data: Conversion) -> Measured:
    """Image AUROC and pixel AP; without masks, the pixel AP of synthetic defects."""
    known = data.manifest[data.manifest["category"].isin(pipeline.categories)]
    certain = known["label"].isin((GOOD, DEFECTIVE))
    tests = known[certain & (known["split"] == splits.TEST)].sort_values("sha256")
    tests = tests.groupby(["category", "label"]).head(data.test_images)
    if tests.empty:
        raise ConfigurationError(
            "the manifest has no test image of the model's categories "
            f"({', '.join(pipeline.categories)}); name the manifest that the model was trained on"
        )
    config = EvaluationConfig(synthetic_images=min(64, data.test_images))
    with TemporaryDirectory() as folder:
        store = PredictionStore(Path(folder) / "predictions")
        score_images(pipeline, tests, data.images, store, config)
        measured = plain_metrics(store, data.images, config)["categories"]
        scores = store.index()["score"].to_numpy()
    synthetic = measure_synthetic_localisation(pipeline, known, data.images, config)
    metrics = {
        category: {
            "image_auroc": values["image_auroc"],
            "pixel_ap": synthetic.get(category, values)["pixel_ap"],
        }
        for category, values in measured.items()
    }
    return Measured(metrics, scores)


def _require_parity(actual: Measured, expected: Measured, precision: Precision) -> None:
    differences = [
        f"the {name} of {category} is {actual.metrics[category][name]:.4f}, not {value:.4f}"
        for category, values in expected.metrics.items()
        for name, value in values.items()
        if value is not None and not abs(actual.metrics[category][name] - value) <= LIMITS[name]
    ]
    if differences:
        limits = " and ".join(f"{limit} in {name}" for name, limit in LIMITS.items())
        raise ModelError(
            f"{precision} differs from float32 by more than {limits}: {'; '.join(differences)}; "
            "nothing was written: use --precision float32, or fewer --parts"
        )
