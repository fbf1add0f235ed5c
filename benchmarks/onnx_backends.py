"""Network, autoencoder and whole pipeline by ONNX Runtime (and OpenVINO, if installed) and torch.

``python -m benchmarks.onnx_backends --model FOLDER --onnx FOLDER --batches 1 4 16``; without a
model one of the demo's sizes with random weights, exported first. All take turns in one process,
with as many threads as torch has. Processor time stands beside wall time, because other work on
the machine changes the latter more. Not part of ``make bench``: it needs the extra ``onnx``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderTiny

from decodiff_pipeline.deco.autoencoder import decode, encode
from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
from decodiff_pipeline.deco.unet import build_unet
from decodiff_pipeline.export.onnx_export import export
from decodiff_pipeline.export.onnx_model import attach
from decodiff_pipeline.serving.scorer import load_pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

PEER = "torch, eager, float32"


class OpenVinoSession:
    """As :class:`~decodiff_pipeline.export.onnx_model.Session`, by OpenVINO."""

    def __init__(self, folder: Path, part: str) -> None:
        import openvino

        options = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self._model = openvino.Core().compile_model(folder / f"{part}.onnx", "CPU", options)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Compute."""
        return torch.from_numpy(self._model([tensor.numpy() for tensor in inputs])[0])


def run(
    model: Path | None = None,
    onnx: Path | None = None,
    batches: Sequence[int] = (1, 4, 16),
    rounds: int = 9,
) -> Iterator[dict[str, Any]]:
    """Records of every part at every batch size, as they come."""
    with tempfile.TemporaryDirectory() as folder:
        if model is None:
            model, onnx = Path(folder, "model"), None
            _random_model().save_pretrained(model)
        if onnx is None:
            onnx = Path(folder, "onnx")
            export(model, onnx)
        pipelines = {"torch": load_pipeline(model).to("cpu")}
        pipelines["onnxruntime"] = load_pipeline(model, onnx)
        if find_spec("openvino"):
            pipelines["openvino"] = load_pipeline(model)
            attach(pipelines["openvino"], onnx, OpenVinoSession)
    for batch in batches:
        for part, calls in _calls(pipelines, batch).items():
            yield from _compared(f"{part}_{batch}", calls, batch, rounds)


def _calls(
    pipelines: Mapping[str, DeCoDiffPipeline], batch: int
) -> dict[str, dict[str, Callable[[], object]]]:
    """Part → backend → what is timed."""
    torch.manual_seed(0)
    first = pipelines["torch"]
    side, size = first.image_size, first.unet.config.sample_size
    images = torch.rand(batch, 3, side, side) * 2 - 1
    latents = torch.randn(batch, first.unet.config.in_channels, size, size)
    ids = torch.arange(batch) % len(first.categories)
    names = [first.categories[index] for index in ids]

    def network(pipeline: DeCoDiffPipeline) -> object:
        with torch.no_grad():
            return pipeline.unet(latents, 4, ids)

    parts: dict[str, Callable[[DeCoDiffPipeline], object]] = {
        "network": network,
        "encode": lambda pipeline: encode(pipeline.vae, images),
        "decode": lambda pipeline: decode(pipeline.vae, latents),
        "pixels_to_map": lambda pipeline: pipeline(images, names, batch_size=batch),
    }
    return {
        part: {name: lambda f=function, p=pipeline: f(p) for name, pipeline in pipelines.items()}
        for part, function in parts.items()
    }


def _compared(
    name: str, calls: Mapping[str, Callable[[], object]], batch: int, rounds: int
) -> list[dict[str, Any]]:
    for call in calls.values():
        call()
    turns = [{side: _timed(call) for side, call in calls.items()} for _ in range(rounds)]
    wall, processor = (
        {side: statistics.median(turn[side][kind] for turn in turns) for side in calls}
        for kind in (0, 1)
    )
    return [
        {
            "name": f"{side}_{name}",
            "ours": round(batch / wall[side], 2),
            "peer": round(batch / wall["torch"], 2),
            "peer_name": PEER,
            "unit": "images/s",
            "ratio": round(wall["torch"] / wall[side], 2),
            "processor_ratio": round(processor["torch"] / processor[side], 2),
            "processor_ms": round(1000 * processor[side] / batch, 1),
            "threads": torch.get_num_threads(),
            "load": round(os.getloadavg()[0], 1),
        }
        for side in calls
        if side != "torch"
    ]


def _timed(call: Callable[[], object]) -> tuple[float, float]:
    wall, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - processor


def _random_model() -> DeCoDiffPipeline:
    torch.manual_seed(0)
    return DeCoDiffPipeline(
        AutoencoderTiny().eval(),
        build_unet("nano", ("a", "b"), 16, 4, dropout=0.0),
        DeCoDiffScheduler(),
        preprocess={"resize": 128, "image_size": 128},
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.onnx_backends")
    parser.add_argument("--model", type=Path, help="saved pipeline; random weights without")
    parser.add_argument("--onnx", type=Path, help="its export; made anew without")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    for record in run(options.model, options.onnx, options.batches, options.rounds):
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
