"""How many images a server answers, how long one waits, and whether its memory grows.

``python -m benchmarks.serving_load --model data/06_models/elpv --images data/01_raw/elpv/images``
starts a server on this machine (``mlflow models serve``, as the documentation says) and asks it
with 1, 4 and 16 clients at once, one image a request; then it reads the memory of the server's
processes every 50 of 1,000 requests. Without ``--model`` it makes a small untrained one.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
from PIL import Image

from decodiff_pipeline.data.images import SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MEMORY_EVERY = 50


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="models:/…, an MLflow model's folder, or one with pipeline")
    parser.add_argument("--images", type=Path, help="folder of images; default: noise")
    parser.add_argument("--category", help="of all images; default: the model's first")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--requests", type=int, default=200, help="for each number of clients")
    parser.add_argument("--memory-requests", type=int, default=1000, help="0 for none")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--map-bits", type=int, default=8, choices=(0, 8, 16))
    parser.add_argument("--seconds", type=float, default=300, help="most for each measurement")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server is ended too
    with tempfile.TemporaryDirectory() as folder:
        model = served(options.model, Path(folder))
        category = options.category or first_category(model)
        bodies = [body(image, category, options.map_bits) for image in pictures(options.images)]
        with server(model, options.workers, Path(folder)) as (port, process):
            asked(port, bodies, 1, 10, options.seconds)  # kernels are chosen, memory is taken
            print("clients  requests  errors  images/s  p50 ms  p95 ms  load")
            for clients in options.clients:
                print(asked(port, bodies, clients, options.requests, options.seconds), flush=True)
            if options.memory_requests:
                print(remembered(port, process, bodies, options.memory_requests, options.seconds))


def served(model: str | None, folder: Path) -> str:
    """An MLflow model to serve: the one that is named, or one made of a pipeline's folder."""
    if model is not None and not (Path(model) / "pipeline").is_dir():
        return model
    from benchmarks.served_folder import save_model

    if model is None:
        model = str(folder / "untrained")
        untrained(Path(model))
    save_model(Path(model), folder / "mlflow_model")
    return str(folder / "mlflow_model")


def untrained(folder: Path) -> None:
    """A pipeline with random weights: 64² images, the embedded autoencoder."""
    import torch
    from diffusers import AutoencoderTiny

    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
    from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
    from decodiff_pipeline.deco.unet import DeCoDiffUNet
    from decodiff_pipeline.deco.weights import AutoencoderConfig, locate

    torch.manual_seed(0)
    DeCoDiffPipeline(
        AutoencoderTiny.from_pretrained(locate(AutoencoderConfig())),
        DeCoDiffUNet(categories=("part",), sample_size=8, base_channels=32, num_heads=2),
        DeCoDiffScheduler(),
        preprocess={"resize": 64, "image_size": 64},
    ).save_pretrained(folder / "pipeline")
    (folder / "thresholds.json").write_text('{"categories": {"part": {"threshold": 0.5}}}')


def first_category(model: str) -> str:
    """The first category that an MLflow model knows."""
    import mlflow

    local = Path(mlflow.artifacts.download_artifacts(model))
    (config,) = local.glob("artifacts/*/unet/config.json")
    return json.loads(config.read_text())["categories"][0]


def pictures(folder: Path | None) -> list[bytes]:
    """Image files of a folder, at most 100; noise of 300² pixels where there is none."""
    if folder is None:
        random = np.random.default_rng(0)
        return [_png(random.integers(0, 256, (300, 300), np.uint8)) for _ in range(20)]
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)[:100]
    if not paths:
        sys.exit(f"error: there is no image in {folder}")
    return [path.read_bytes() for path in paths]


def _png(grey: np.ndarray) -> bytes:
    with tempfile.SpooledTemporaryFile() as file:
        Image.fromarray(grey).save(file, "PNG")
        file.seek(0)
        return file.read()


def body(image: bytes, category: str, map_bits: int) -> bytes:
    """A request for one image."""
    row = {"image": base64.b64encode(image).decode(), "category": category}
    return json.dumps({"dataframe_records": [row], "params": {"map_bits": map_bits}}).encode()


@contextmanager
def server(model: str, workers: int, folder: Path) -> Iterator[tuple[int, psutil.Process]]:
    """Port and main process of `mlflow models serve`, which is ended afterwards."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    tools = Path(sys.executable).parent
    command = [str(tools / "mlflow"), "models", "serve", "--env-manager", "local", "-m", model]
    command += ["-h", "127.0.0.1", "-p", str(port), "-w", str(workers)]
    environment = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            for _ in range(600):
                if process.poll() is not None:
                    break
                if _answers(port):
                    yield port, psutil.Process(process.pid)
                    return
                time.sleep(0.5)
            said = (folder / "server.log").read_text()[-2000:]
            sys.exit(f"error: the server does not start:\n{said}")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)


def _answers(port: int) -> bool:
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    except OSError:
        return False


def asked(port: int, bodies: Sequence[bytes], clients: int, requests: int, seconds: float) -> str:
    """A line of the table: `requests` requests from `clients` threads."""
    times: list[float] = []
    errors: list[str] = []
    todo, lock = iter(zip(range(requests), cycle(bodies), strict=False)), threading.Lock()
    start = time.perf_counter()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while time.perf_counter() - start < seconds:
            with lock:
                item = next(todo, None)
            if item is None:
                return
            begun = time.perf_counter()
            failed = _failure(connection, item[1])
            times.append(time.perf_counter() - begun)
            errors.extend([failed] if failed else [])

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - start
    if errors:
        print(f"the first error: {errors[0]}", file=sys.stderr)
    p50, p95 = np.percentile(times, [50, 95]) * 1000
    rate = (len(times) - len(errors)) / elapsed
    return (
        f"{clients:7d}  {len(times):8d}  {len(errors):6d}  {rate:8.2f}  {p50:6.0f}  {p95:6.0f}  "
        f"{os.getloadavg()[0]:4.1f}"
    )


def _failure(connection: http.client.HTTPConnection, request: bytes) -> str | None:
    """Sends a request; what went wrong."""
    try:
        connection.request("POST", "/invocations", request, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return repr(error)
    return None if answer.status == 200 else f"{answer.status} {content[:300]!r}"


def remembered(
    port: int, process: psutil.Process, bodies: Sequence[bytes], requests: int, seconds: float
) -> str:
    """Memory of the server's processes over many requests from four clients."""
    memory, start = [_memory(process)], time.perf_counter()
    for _ in range(0, requests, MEMORY_EVERY):
        if time.perf_counter() - start > seconds:
            break
        asked(port, bodies, 4, MEMORY_EVERY, seconds)
        memory.append(_memory(process))
    done = MEMORY_EVERY * (len(memory) - 1)
    half = len(memory) // 2
    at = MEMORY_EVERY * np.arange(half, len(memory))
    slope = np.polyfit(at, memory[half:], 1)[0] * 1000 if len(at) > 1 else float("nan")
    return (
        f"memory over {done} requests: first {memory[0]:.0f} MB, last {memory[-1]:.0f} MB, most "
        f"{max(memory):.0f} MB; second half {slope:+.1f} MB a 1,000 requests"
    )


def _memory(process: psutil.Process) -> float:
    """Resident memory of a process and those it started, in MB."""
    return sum(one.memory_info().rss for one in [process, *process.children(True)]) / 1e6


if __name__ == "__main__":
    main()
