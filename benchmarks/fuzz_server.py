"""Damaged requests by the thousand: ``python -m benchmarks.fuzz_server [requests]``.

A model with random weights is served on loopback as `serving.server` does it. Every answer must be
200 or 4xx, in JSON without a stack trace, and memory must not grow.
"""

from __future__ import annotations

import base64
import json
import sys
import tempfile
import threading
from collections import Counter
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.fuzz_images import mutated, sound
from decodiff_pipeline.data.decoding import FORMATS

if TYPE_CHECKING:
    from collections.abc import Iterator

WARM_UP = 0.25  # of the requests: memory is compared from there on
MAY_GROW_MB = 100
JSON = "application/json"
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1e400, "", "mono", "x" * 5000, [], {}, [[[]]], {"a": {"b": [1]}}, "\ud800",
    "data:image/png;base64,AAAA", "AAAA AAAA", "A-_A", "===", "AAA",
)  # fmt: skip


def save_tiny_model(folder: Path) -> Path:
    """Saves a served model with random weights, of images of 32² pixels; returns its folder."""
    import torch

    from benchmarks.served_folder import save_model
    from decodiff_pipeline.deco.autoencoder import load_autoencoder
    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
    from decodiff_pipeline.deco.scheduler import DeCoDiffScheduler
    from decodiff_pipeline.deco.unet import build_unet
    from decodiff_pipeline.deco.weights import AutoencoderConfig

    torch.manual_seed(0)
    DeCoDiffPipeline(
        load_autoencoder(AutoencoderConfig()),
        build_unet("nano", ["mono"], 4, 4, dropout=0.0),
        DeCoDiffScheduler(),
        preprocess={"resize": 32, "image_size": 32},
        num_inference_steps=2,
    ).save_pretrained(folder / "models" / "pipeline")
    (folder / "models" / "thresholds.json").write_text('{"categories": {}}')
    save_model(folder / "models", folder / "served")
    return folder / "served"


@contextmanager
def served(model: Path) -> Iterator[int]:
    """The port of a server of this process, ended with the block."""
    import mlflow
    import uvicorn

    from decodiff_pipeline.serving.server import make_app

    app = make_app(mlflow.pyfunc.load_model(str(model)))
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", 0, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def request(rng: np.random.Generator) -> tuple[bytes, dict[str, str]]:
    """A body and its headers, with faults in the image, the text, the shape or the type."""
    file = sound(FORMATS[rng.integers(len(FORMATS))], rng)
    if rng.random() < 0.3:
        file = mutated(file, rng)
    text: Any = base64.b64encode(file).decode()
    row: dict[str, Any] = {"image": text, "category": "mono"}
    fault = int(rng.integers(8))
    if fault == 0:  # other characters in the text
        at = int(rng.integers(len(text) or 1))
        row["image"] = text[:at] + " -_*\n=é"[rng.integers(7)] + text[at + int(rng.integers(2)) :]
    elif fault == 1:
        row[str(rng.choice(["image", "category", "other"]))] = ODD[rng.integers(len(ODD))]
    elif fault == 2:
        del row[str(rng.choice(["image", "category"]))]
    rows: Any = [row] * int(rng.choice([0, 1, 1, 1, 2]))
    split = {"columns": list(row), "data": [list(row.values())]}
    shapes = (
        {"dataframe_records": rows}, {"dataframe_split": split}, {"instances": rows},
        {"inputs": row}, {"inputs": ODD[rng.integers(len(ODD))]}, rows,
        {"dataframe_records": ODD[rng.integers(len(ODD))]}, {"messages": rows},
    )  # fmt: skip
    body: Any = shapes[rng.integers(len(shapes)) if fault == 3 else 0]
    if fault == 4 and isinstance(body, dict):
        name = str(rng.choice(["map_bits", "threshold", "unknown"]))
        body["params"] = {name: ODD[rng.integers(len(ODD))]}
    data = json.dumps(body).encode()
    kinds = (
        JSON,
        JSON,
        "text/csv",
        "application/x-parquet",
        "text/plain",
        f"{JSON}; charset=x",
        "",
    )
    kind = str(rng.choice(kinds)) if fault == 5 else JSON
    if fault == 6:
        data = mutated(data, rng)
    return data, {"Content-Type": kind} if kind else {}


def verdict(port: int, data: bytes, headers: dict[str, str]) -> str:
    """The status, or what is wrong with the answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", "/invocations", data, headers)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, HTTPException) as error:
        return f"no answer: {type(error).__name__}"
    finally:
        connection.close()
    if b"Traceback" in body or b"stack_trace" in body:
        return "a stack trace"
    return str(answer.status)


def fuzz(port: int, count: int, seed: int) -> tuple[Counter[str], float]:
    """Send ``count`` requests; returns the verdicts and by how many MB memory grew at last."""
    rng = np.random.default_rng(seed)
    verdicts: Counter[str] = Counter()
    before = 0.0
    for number in range(count):
        if number == int(count * WARM_UP):
            before = resident_mb()
        data, headers = request(rng)
        found = verdict(port, data, headers)
        verdicts[found] += 1
        if found not in {"200", "400", "415", "422"}:
            print(f"{found}: {data[:300]!r} {headers}", file=sys.stderr)
    return verdicts, resident_mb() - before


def resident_mb() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main(arguments: list[str]) -> None:
    """Print the verdicts as JSON; end with status 1 where something must not be."""
    count = int(arguments[0]) if arguments else 2000
    with tempfile.TemporaryDirectory() as folder, served(save_tiny_model(Path(folder))) as port:
        verdicts, grown = fuzz(port, count, 0)
    print(json.dumps({**verdicts, "grown_mb": round(grown, 1)}))
    wrong = [name for name in verdicts if name != "200" and not name.startswith("4")]
    sys.exit(1 if wrong or grown > MAY_GROW_MB else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
