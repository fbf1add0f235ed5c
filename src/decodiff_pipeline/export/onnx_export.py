"""Exports a saved model to ONNX: ``python -m decodiff_pipeline.export.onnx_export --help``.

``python -m decodiff_pipeline.registry.onnx_export`` is the earlier name of the command and stays
for users' scripts. No saved model imports either module.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from decodiff_pipeline.data.atomic import replacing_folder
from decodiff_pipeline.data.images import read_image
from decodiff_pipeline.data.listing import list_images
from decodiff_pipeline.deco.digests import file_sha256, folder_sha256
from decodiff_pipeline.deco.loading import load_pipeline
from decodiff_pipeline.errors import ConfigurationError, DecodiffError, ModelError
from decodiff_pipeline.export.onnx_model import (
    FORMAT,
    PARTS,
    RECORD,
    Part,
    refuse_bfloat16,
    require_packages,
)
from decodiff_pipeline.export.onnx_parity import TOLERANCE, check_tolerance, parity
from decodiff_pipeline.export.onnx_precision import (
    PRECISIONS,
    Conversion,
    convert,
    read_conversion,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL import Image

    from decodiff_pipeline.deco.autoencoder import Autoencoder
    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline

# The opset that torch's exporter writes; a newer one needs a conversion and has no benefit here.
OPSET = 18
MAX_IMAGES = 16
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OUTPUTS: dict[Part, str] = {"network": "deviation", "encoder": "latents", "decoder": "images"}


class _Encoder(nn.Module):
    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        output = self.autoencoder.encode(images)
        # Mean and log-variance of an autoencoder with a posterior.
        return output.latent_dist.parameters if hasattr(output, "latent_dist") else output.latents


class _Decoder(nn.Module):
    def __init__(self, autoencoder: Autoencoder) -> None:
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return self.autoencoder.decode(latents).sample


def export(
    model: Path,
    target: Path,
    *,
    images: Sequence[Image.Image] = (),
    tolerance: float = TOLERANCE,
    conversion: Conversion | None = None,
    tell: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Export a model's network, encoder and decoder to ONNX and compare them with torch.

    Args:
        model: The saved pipeline; see ``save_pretrained``.
        target: A new folder, or an earlier export to replace.
        images: "L" or "RGB" images on which scores and maps are compared; random ones if empty.
        tolerance: See :func:`~.onnx_parity.parity`.
        conversion: Conversion to a lower precision; ``None`` for float32.
        tell: Called with each progress message.

    Returns:
        The content of ``onnx.json``.

    Raises:
        ConfigurationError: A package is missing, the tolerance is out of range, or the model
            computes in bfloat16.
        ModelError: There is no model, the target is not an export, the export fails, ONNX Runtime
            and torch differ, or metrics differ in the lower precision. Nothing is written then.
    """
    require_packages(*PACKAGES)
    check_tolerance(tolerance)
    _check_target(model, target)
    digest = folder_sha256(model)
    pipeline = load_pipeline(model)
    refuse_bfloat16(pipeline, model)
    examples = _examples(pipeline)
    record = _record(digest, examples)
    try:
        with replacing_folder(target) as folder:
            for part, (module, inputs) in examples.items():
                tell(f"exporting the {part}")
                _export_part(module, inputs, OUTPUTS[part], folder / f"{part}.onnx")
            tell("comparing ONNX Runtime with torch")
            record["parity"] = parity(pipeline, folder, images, tolerance)
            if conversion is not None:
                tell(f"converting to {conversion.precision}, and comparing metrics with float32")
                record |= convert(pipeline, folder, conversion)
            record["files"] = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
            text = json.dumps(record, indent=2) + "\n"
            (folder / RECORD).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ModelError(
            f"{target} cannot be written ({error.strerror or error}); correct that and run it again"
        ) from error
    return record


def _record(
    digest: str, examples: dict[Part, tuple[nn.Module, dict[str, torch.Tensor]]]
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "source_sha256": digest,
        "opset": OPSET,
        "shapes": {
            part: {name: ["batch", *value.shape[1:]] for name, value in inputs.items()}
            for part, (_, inputs) in examples.items()
        },
        "versions": {name: version(name) for name in ("torch", "diffusers", *PACKAGES)},
    }


def _check_target(model: Path, target: Path) -> None:
    if target.resolve().is_relative_to(model.resolve()):
        raise ModelError(
            f"{target} lies in the model {model}, which it would change; name another folder"
        )
    exists = target.is_file() or (target.is_dir() and any(target.iterdir()))
    if exists and not (target / RECORD).is_file():
        raise ModelError(f"{target} exists and is not an ONNX export; name another folder")


def _examples(pipeline: DeCoDiffPipeline) -> dict[Part, tuple[nn.Module, dict[str, torch.Tensor]]]:
    """Each part with example inputs. The batch size is 2, because 1 would become a constant."""
    unet, vae = pipeline.unet, pipeline.vae
    latents = torch.zeros(2, unet.config.in_channels, *[unet.config.sample_size] * 2)
    images = torch.zeros(2, 3, *[pipeline.image_size] * 2)
    index = torch.zeros(2, dtype=torch.int64)
    modules = unet, _Encoder(vae).eval(), _Decoder(vae).eval()
    inputs = (
        {"sample": latents, "timestep": index, "category_ids": index.clone()},
        {"images": images},
        {"latents": latents},
    )
    return dict(zip(PARTS, zip(modules, inputs, strict=True), strict=True))


@torch.no_grad()
def _export_part(
    module: nn.Module, inputs: dict[str, torch.Tensor], output: str, path: Path
) -> None:
    batch = {0: torch.export.Dim.DYNAMIC}
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # no warning about torchvision
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module,
                tuple(inputs.values()),
                dynamo=True,
                dynamic_shapes=(batch,) * len(inputs),
                input_names=list(inputs),
                output_names=[output],
                opset_version=OPSET,
                verbose=False,
            )
            assert program is not None  # noqa: S101 - None only without dynamo
            program.save(str(path))
    except OSError:
        raise
    except Exception as error:  # unsupported operators raise various classes
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"torch {torch.__version__} cannot export the {path.stem} ({reason}); use the backend "
            "torch, or other versions of torch and onnxscript"
        ) from error


def _read_images(folder: Path) -> list[Image.Image]:
    files = list_images(folder, recursive=True)
    if not files:
        raise ConfigurationError(
            f"--images {folder} contains no image; name a folder with images, or leave it out"
        )
    return [read_image(path) for path in files[:: -(-len(files) // MAX_IMAGES)]]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with a message and status 1 on an error."""
    parser = argparse.ArgumentParser(
        prog="python -m decodiff_pipeline.export.onnx_export",
        description="Write a saved model's network, encoder and decoder as ONNX, after checking "
        "that ONNX Runtime computes what torch does.",
    )
    parser.add_argument("--model", type=Path, required=True, help="folder of the saved pipeline")
    parser.add_argument("--to", type=Path, required=True, help="folder of the export")
    parser.add_argument("--images", type=Path, help="folder of images to compare scores on")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="%(default)s")
    lower = parser.add_argument_group("lower precision")
    lower.add_argument("--precision", choices=PRECISIONS, default="float32", help="%(default)s")
    lower.add_argument(
        "--manifest", type=Path, help="validated manifest; its paths are relative to --images"
    )
    lower.add_argument(
        "--parts", nargs="+", choices=PARTS, help="parts to convert; int8: decoder, float16: all"
    )
    lower.add_argument(
        "--test-images",
        type=int,
        default=100,
        help="images per category and label on which metrics are compared; %(default)s",
    )
    options = parser.parse_args(arguments)
    try:
        conversion = None
        if options.precision != "float32":
            parts = tuple(options.parts or ())
            conversion = read_conversion(
                options.precision, parts, options.manifest, options.images, options.test_images
            )
        images = [] if options.images is None else _read_images(options.images)
        record = export(
            options.model,
            options.to,
            images=images,
            tolerance=options.tolerance,
            conversion=conversion,
            tell=lambda line: sys.stdout.write(f"{line}\n"),
        )
    except DecodiffError as error:
        sys.exit(f"error: {error}")
    for name, difference in record["parity"]["differences"].items():
        sys.stdout.write(f"largest difference of {name}: {difference:.1e}\n")
    for precision, categories in record.get("metrics", {}).items():
        for category, metrics in categories.items():
            values = (f"{name} {value:.4f}" for name, value in metrics.items() if value is not None)
            sys.stdout.write(f"{precision}, {category}: {', '.join(values)}\n")
    sys.stdout.write(f"written: {options.to}\n")


if __name__ == "__main__":
    main()
