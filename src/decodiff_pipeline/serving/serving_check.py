"""Whether a registered version answers in a process that has nothing but the registry.

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
ERROR_LINES = 400  # characters of what the process said last


@dataclass(frozen=True)
class ServingResult:
    """What a fresh process made of the registered version."""

    error: str | None = None  # why it does not answer, as a sentence; ``None`` where it does
    # whether the SHA-256 of its files is that of the version's tags
    files_as_registered: bool | None = None
    largest_error: float | None = None  # largest difference of a score from the evaluation's
    latency_ms: float | None = None  # median time of a request with one image
    size_mb: float | None = None  # size of the logged model in 10⁶ bytes


def sample_rows(rows: pd.DataFrame, count: int) -> pd.DataFrame:
    """A few images of every category in turn, good and defective ones alike.

    Args:
        rows: Scored test images with ``category``, ``label`` and ``path``.
        count: How many are wanted.
    """
    rows = rows.sort_values("path")
    turn = rows.groupby(["category", "label"]).cumcount()
    return rows.assign(turn=turn).sort_values(["turn", "category", "label"]).head(count)


def check_serving(
    uri: str,
    tags: Mapping[str, str],
    images: ImageFolder,
    rows: pd.DataFrame,
    timeout_s: float,
) -> tuple[ServingResult, list[float]]:
    """Let a fresh process load a version and answer real images, one a request.

    Args:
        uri: ``models:/name/version``.
        tags: Of the version, with its digests.
        images: The raw images.
        rows: Images to answer, with ``path`` and ``category``.
        timeout_s: When to give up.

    Returns:
        The result, without the difference from the evaluation; the scores in the order of ``rows``,
        none where it does not answer.
    """
    import mlflow

    request = {
        "uri": uri,
        "digests": {tag: tags.get(tag) for tag in DIGESTS},
        "root": str(images.path.absolute()),
        "images": rows[["path", "category"]].to_dict("records"),
    }
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder, "request.json"), Path(folder, "answer.json")
        asked.write_text(json.dumps(request), encoding="utf-8")
        try:
            done = subprocess.run(  # noqa: S603 - this interpreter and module, no shell
                [sys.executable, "-m", MODULE, str(asked), str(answered)],
                capture_output=True,
                text=True,
                env=_environment(mlflow.get_tracking_uri()),
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return ServingResult(error=f"no answer within {timeout_s:g} s"), []
        if not answered.is_file():
            said = redact((done.stderr or done.stdout).strip()[-ERROR_LINES:])
            return ServingResult(
                error=f"the process ended with status {done.returncode}: {said}"
            ), []
        answer = json.loads(answered.read_text(encoding="utf-8"))
    scores = answer.pop("scores", [])
    return ServingResult(**answer), scores


def _environment(tracking_uri: str) -> dict[str, str]:
    """Variables of the process, without the run's id and without those that configure a server."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if key != "MLFLOW_RUN_ID" and not key.startswith(OF_A_SERVER)
    }
    return kept | {"MLFLOW_TRACKING_URI": tracking_uri}


def answer_request(request: Mapping[str, Any]) -> dict[str, Any]:
    """What the fresh process does.

    Args:
        request: See `check_serving`.

    Returns:
        Fields of `ServingResult`, and ``scores``.
    """
    prepare_environment()
    import mlflow

    answer: dict[str, Any] = {}
    # A copy of its own, so that what is checked is what is loaded.
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
    """Milliseconds, the quickest of some repetitions, and score of each image.

    What else the machine does only ever adds to a time, so the quickest is the version's own.
    """
    import pandas as pd

    frames = [
        pd.DataFrame(
            {"image": [read_bytes(root / row["path"], root=root)], "category": [row["category"]]}
        )
        for row in images
    ]
    model.predict(frames[0])  # what is done once, such as choosing kernels, is not latency
    times, scores = [], []
    for frame in frames:
        repeated = []
        for _ in range(REPETITIONS):
            start = time.perf_counter()
            answer = model.predict(frame)
            repeated.append((time.perf_counter() - start) * 1000)
        times.append(min(repeated))
        scores.append(float(answer["score"][0]))
    return times, scores


if __name__ == "__main__":
    asked_for = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(sys.argv[2]).write_text(json.dumps(answer_request(asked_for)), encoding="utf-8")
