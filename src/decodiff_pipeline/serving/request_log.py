"""The request log of a served model: JSON lines, one file a day, images where they are wanted."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decodiff_pipeline.data.atomic import append_lines, replacing
from decodiff_pipeline.data.decoding import suffix_of
from decodiff_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from decodiff_pipeline.serving.answer import Answer

logger = logging.getLogger(__name__)

FOLDER_VARIABLE = "DECODIFF_REQUEST_LOG"
IMAGES_VARIABLE = "DECODIFF_LOG_IMAGES"
LIMIT_VARIABLE = "DECODIFF_LOG_IMAGES_GB"
NONE, DEFECTIVE, ALL = "none", "defective", "all"
LIMIT_GB = 10.0
RECOUNT_S = 60  # between two looks at what other processes have kept, or somebody removed


class RequestLog:
    """Writes a line for each image that was answered; whatever happens, the answer is given.

    Any number of threads, processes and servers may share a folder: a request's lines are one
    write under a lock on the file, and an image's name is its SHA-256.

    Args:
        folder: Where ``<day>.jsonl`` (UTC) and ``images/`` go; made if missing.
        model: What every line says of the model.
        images: Which images are kept: ``none``, ``defective`` or ``all``.
        limit_bytes: About as much as the kept images may take.

    Raises:
        ConfigurationError: The folder cannot be written to.
    """

    def __init__(
        self,
        folder: Path,
        model: Mapping[str, Any],
        *,
        images: str = NONE,
        limit_bytes: float = LIMIT_GB * 1e9,
    ) -> None:
        self._folder, self._model = folder, dict(model)
        self._images, self._limit = images, limit_bytes
        self._kept, self._counted_at = 0, -float("inf")
        self._troubles: set[str] = set()
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._append(b"")
        except OSError as error:
            msg = (
                f"{FOLDER_VARIABLE} names {folder}, which cannot be written to "
                f"({error.strerror}); name a folder that the server owns"
            )
            raise ConfigurationError(msg) from error

    @classmethod
    def from_environment(cls, model: Mapping[str, Any]) -> RequestLog | None:
        """The log that the server's environment asks for; ``None`` where it asks for none.

        Raises:
            ConfigurationError: A variable's value makes no sense.
        """
        folder = os.environ.get(FOLDER_VARIABLE)
        images = os.environ.get(IMAGES_VARIABLE) or NONE
        if images not in (NONE, DEFECTIVE, ALL):
            msg = f"{IMAGES_VARIABLE} is {images!r}; use {NONE}, {DEFECTIVE} or {ALL}"
            raise ConfigurationError(msg)
        if not folder:
            if images != NONE:
                msg = f"{IMAGES_VARIABLE} is {images!r}, but {FOLDER_VARIABLE} names no folder"
                raise ConfigurationError(msg)
            return None
        return cls(Path(folder), model, images=images, limit_bytes=_limit() * 1e9)

    def write(
        self,
        request_id: str,
        images: Sequence[bytes],
        categories: Sequence[str],
        answers: Sequence[Answer],
        latency_ms: float,
    ) -> None:
        """Log an answered request. What goes wrong is a warning, once until it works again.

        Args:
            request_id: Told to the client as well.
            images: The files as they came.
            categories: Of each image.
            answers: To each image.
            latency_ms: Between the request's arrival in the model and its answers.
        """
        request = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": request_id,
            **self._model,
            "latency_ms": round(latency_ms, 1),
            "images_kept": self._images,
        }
        try:
            lines = [
                json.dumps(request | self._about(image, category, answer))
                for image, category, answer in zip(images, categories, answers, strict=True)
            ]
            self._append("".join(f"{line}\n" for line in lines).encode())
        except Exception as error:  # a log never costs an answer
            self._trouble("log", f"requests are answered but not logged: {error}")
        else:
            self._troubles.discard("log")

    def _about(self, data: bytes, category: str, answer: Answer) -> dict[str, Any]:
        sha256 = hashlib.sha256(data).hexdigest()
        width, height = answer.size
        wanted = self._images == ALL or (self._images, answer.decision) == (DEFECTIVE, DEFECTIVE)
        return {
            "category": category,
            "score": answer.score,
            "threshold": answer.threshold,
            "threshold_from": answer.threshold_from,
            "decision": answer.decision,
            "image_sha256": sha256,
            "width": width,
            "height": height,
            "path": self._keep(data, sha256) if wanted else None,
        }

    def _append(self, lines: bytes) -> None:
        path = self._folder / f"{datetime.now(UTC):%Y-%m-%d}.jsonl"
        append_lines(path, lines, mode=0o640)

    def _keep(self, data: bytes, sha256: str) -> str | None:
        """Path of the image within the folder; ``None`` where it was not kept."""
        try:
            name = f"images/{sha256[:2]}/{sha256}{suffix_of(data)}"
            path = self._folder / name
            if not path.exists():
                if not self._has_room(len(data)):
                    return None
                with self._lock, replacing(path) as temporary:
                    temporary.write_bytes(data)
                    temporary.chmod(0o640)
        except OSError as error:
            self._trouble("images", f"images are not kept: {error}")
            return None
        self._troubles.discard("images")
        return name

    def _has_room(self, size: int) -> bool:
        with self._lock:
            if time.monotonic() - self._counted_at > RECOUNT_S:
                self._kept = _size(self._folder / "images")
                self._counted_at = time.monotonic()
            if self._kept + size <= self._limit:
                self._kept += size
                return True
        self._trouble(
            "images",
            f"images are not kept: those in {self._folder / 'images'} take "
            f"{self._limit / 1e9:g} GB; remove old ones, or raise {LIMIT_VARIABLE}",
        )
        return False

    def _trouble(self, kind: str, message: str) -> None:
        if kind not in self._troubles:
            self._troubles.add(kind)
            logger.warning("%s", message)


def _limit() -> float:
    text = os.environ.get(LIMIT_VARIABLE) or LIMIT_GB
    try:
        limit = float(text)
    except ValueError:
        limit = -1
    if not 0 < limit < float("inf"):
        msg = f"{LIMIT_VARIABLE} is {text!r}; make it a number of gigabytes above 0"
        raise ConfigurationError(msg)
    return limit


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
