"""ONNX export and parity of an untrained model as large as the published ones.

``python -m benchmarks.onnx_size --preset XL --images data/01_raw/elpv/images`` makes a network of
that preset and an autoencoder of Stable Diffusion's shape, both with random weights, exports them
as `python -m decodiff_pipeline.export.onnx_export` does, and prints the size of each file and the
largest differences between ONNX Runtime and torch. XL needs 12 GB of memory and 5 GB of disk.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.inference import autoencoder
from decodiff_pipeline.data.images import SUFFIXES, read_image
from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
from decodiff_pipeline.deco.unet import PRESETS, build_unet
from decodiff_pipeline.export.onnx_export import export


def main() -> None:
    """Print the sizes and the differences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=list(PRESETS), default="XL")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("--images", type=Path, help="folder of images; default: random ones")
    parser.add_argument("--number", type=int, default=16, help="of images compared")
    options = parser.parse_args()
    paths = sorted(
        path
        for path in (options.images.rglob("*") if options.images else ())
        if path.suffix.lower() in SUFFIXES
    )
    images = [read_image(path) for path in paths[: options.number]]
    with tempfile.TemporaryDirectory() as folder:
        model, target = Path(folder) / "pipeline", Path(folder) / "onnx"
        untrained(options.preset, options.image_size).save_pretrained(model)
        begun = time.process_time()
        record = export(model, target, images=images, tell=print)
        print(f"{time.process_time() - begun:.0f} s of processor time")
        for path in sorted(target.iterdir()):
            print(f"{path.name}: {path.stat().st_size / 1e6:,.1f} MB")
    for name, difference in record["parity"]["differences"].items():
        print(f"largest difference of {name}: {difference:.1e}")


def untrained(preset: str, image_size: int) -> DeCoDiffPipeline:
    """A pipeline with random weights; the autoencoder has the shape of Stable Diffusion's."""
    torch.manual_seed(0)
    network = build_unet(preset, ["part"], image_size // 8, 4, dropout=0.0)
    preprocess = {"resize": image_size, "image_size": image_size}
    return DeCoDiffPipeline(
        autoencoder("_sd_vae"), network.eval(), DeCoDiffScheduler(), preprocess=preprocess
    )


if __name__ == "__main__":
    main()
