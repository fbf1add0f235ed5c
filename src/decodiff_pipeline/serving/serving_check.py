"""Checks that a registered version scores images in a new process with only registry access.

python -m decodiff_pipeline.serving.serving_check REQUEST.JSON ANSWER.JSON
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.data.images import ImageFolder, read_bytes
from decodiff_pipeline.serving.served_version import DIGESTS, differing
from decodiff_pipeline.tracking.mlflow_values import (
    OF_A_SERVER,
    first_line,
    prepare_environment,
)
from decodiff_pipeline.tracking.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

MODULE = "decodiff_pipeline.serving.serving_check"
REPETITIONS = 3
ERROR_CHARACTERS = 400  # of the end of the process's output


@dataclass(frozen=True)
class ServingResult:
    """Result of the check."""

    error: str | None = None  # reason of a failure, as a sentence
    # whether the SHA-256 of the model's files equals the version's tags
    files_as_registered: bool | None = None
    largest_error: float | None = None  # largest difference from a score of the evaluation
    latency_ms: float | None = None  # median latency of a request with one image
    size_mb: float | None = None  # size of the logged model in 10⁶ bytes


def sample_rows(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """Select images evenly from all categories and labels.

    Args:
        rows: Scored test images with ``category``, ``label`` and ``path``.
    """
    rows = rows.sort_values("path")
    turn = rows.groupby(["category", "label"]).cumcount()
    return rows.assign(turn=turn).sort_values(["turn", "category", "label"]).head(count)


def check_serving(
    uri: str, tags: Mapping[str, str], images: ImageFolder, rows: pd.DataFrame, timeout_s: float
) -> tuple[ServingResult, list[float]]:
    """Load a version in a new process and score images, one per request.

    Args:
        tags: Tags of the version, with its `DIGESTS`.
        rows: Images to score, with ``path`` and ``category``.

    Returns:
        The result without ``largest_error``, and the scores in the order of ``rows`` (empty after
        a failure).
    """
    import mlflow

    request = {
        "uri": uri,
        "digests": {tag: tags.get(tag) for tag in DIGESTS},
        "root": str(images.path.absolute()),
        "images": rows[["path", "category"]].to_dict("records"),
    }
    with tempfile.TemporaryDirectory() as folder:
        request_file, answer_file = Path(folder, "request.json"), Path(folder, "answer.json")
        request_file.write_text(json.dumps(request), encoding="utf-8")
        try:
            process = subprocess.run(  # noqa: S603 - this interpreter and module, no shell
                [sys.executable, "-m", MODULE, str(request_file), str(answer_file)],
                capture_output=True,
                text=True,
                env=_environment(mlflow.get_tracking_uri()),
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return ServingResult(error=f"no answer within {timeout_s:g} s"), []
        if not answer_file.is_file():
            output = redact((process.stderr or process.stdout).strip()[-ERROR_CHARACTERS:])
            return ServingResult(
                error=f"the process ended with status {process.returncode}: {output}"
            ), []
        answer = json.loads(answer_file.read_text(encoding="utf-8"))
    scores = answer.pop("scores", [])
    return ServingResult(**answer), scores


def _environment(tracking_uri: str) -> dict[str, str]:
    """Environment of the process, without the run's ID and the variables of an MLflow server."""
    variables = {
        key: value
        for key, value in os.environ.items()
        if key != "MLFLOW_RUN_ID" and not key.startswith(OF_A_SERVER)
    }
    return variables | {"MLFLOW_TRACKING_URI": tracking_uri}


def answer_request(request: Mapping[str, Any]) -> dict[str, Any]:
    """Run the check in the new process.

    Args:
        request: See `check_serving`.

    Returns:
        Fields of `ServingResult`, and ``scores``.
    """
    prepare_environment()
    import mlflow

    answer: dict[str, Any] = {}
    # Downloaded anew, so that the loaded files are the checked ones.
    with tempfile.TemporaryDirectory() as folder:
        try:
            local = Path(mlflow.artifacts.download_artifacts(request["uri"], dst_path=folder))
            answer["files_as_registered"] = not differing(local, request["digests"])
            if not answer["files_as_registered"]:
                return answer
            size = sum(path.stat().st_size for path in local.rglob("*") if path.is_file())
            answer["size_mb"] = size / 1e6
            model = mlflow.pyfunc.load_model(str(local))
            times, answer["scores"] = _timed(model, Path(request["root"]), request["images"])
            answer["latency_ms"] = statistics.median(times)
        except Exception as error:
            answer["error"] = f"{type(error).__name__}: {first_line(error)}"
    return answer


def _timed(
    model: Any, root: Path, images: Sequence[Mapping[str, str]]
) -> tuple[list[float], list[float]]:
    """Latency in milliseconds and score of each image.

    The latency is the minimum over `REPETITIONS`, because other load only increases it.
    """
    import pandas as pd

    frames = [
        pd.DataFrame(
            {"image": [read_bytes(root / row["path"], root=root)], "category": [row["category"]]}
        )
        for row in images
    ]
    model.predict(frames[0])  # warm-up
    times, scores = [], []
    for frame in frames:
        latencies = []
        for _ in range(REPETITIONS):
            start = time.perf_counter()
            answer = model.predict(frame)
            latencies.append((time.perf_counter() - start) * 1000)
        times.append(min(latencies))
        scores.append(float(answer["score"][0]))
    return times, scores


if __name__ == "__main__":
    content = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(sys.argv[2]).write_text(json.dumps(answer_request(content)), encoding="utf-8")
