"""The request log of a served model: one JSON Lines file per day, and optionally the images."""

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
RECOUNT_S = 60  # seconds after which the size of the image folder is measured again


class RequestLog:
    """Writes a line for each scored image. A failure to log never fails the request.

    Threads, processes and servers may share a folder: the lines of a request are appended in one
    write under a file lock, and an image's file name is its SHA-256.

    Args:
        folder: Folder for ``<day>.jsonl`` (UTC) and ``images/``; created if missing.
        model: Fields of every line that identify the model.
        images: Which images are stored: ``none``, ``defective`` or ``all``.
        limit_bytes: Approximate limit of the total size of the stored images.

    Raises:
        ConfigurationError: The folder is not writable.
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
        self._stored_bytes, self._measured_at = 0, -float("inf")
        self._active_warnings: set[str] = set()
        self._lock = threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._append(b"")
        except OSError as error:
            msg = (
                f"{FOLDER_VARIABLE} is {folder}, which cannot be written to "
                f"({error.strerror}); set it to a folder that the server owns"
            )
            raise ConfigurationError(msg) from error

    @classmethod
    def from_environment(cls, model: Mapping[str, Any]) -> RequestLog | None:
        """The log that environment variables configure; ``None`` without ``DECODIFF_REQUEST_LOG``.

        Raises:
            ConfigurationError: The value of a variable is invalid, or the folder is not writable.
        """
        folder = os.environ.get(FOLDER_VARIABLE)
        images = os.environ.get(IMAGES_VARIABLE) or NONE
        if images not in (NONE, DEFECTIVE, ALL):
            msg = f"{IMAGES_VARIABLE} is {images!r}; use {NONE}, {DEFECTIVE} or {ALL}"
            raise ConfigurationError(msg)
        if not folder:
            if images != NONE:
                msg = f"{IMAGES_VARIABLE} is {images!r}, but {FOLDER_VARIABLE} is not set"
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
        """Log an answered request. A failure is logged as a warning once, until it is resolved.

        Args:
            latency_ms: Time in the model, including decoding, in milliseconds.
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
                json.dumps(request | self._image_fields(image, category, answer))
                for image, category, answer in zip(images, categories, answers, strict=True)
            ]
            self._append("".join(f"{line}\n" for line in lines).encode())
        except Exception as error:  # logging must not fail the request
            self._warn_once("log", f"requests are answered but not logged: {error}")
        else:
            self._active_warnings.discard("log")

    def _image_fields(self, data: bytes, category: str, answer: Answer) -> dict[str, Any]:
        sha256 = hashlib.sha256(data).hexdigest()
        width, height = answer.size
        store = self._images == ALL or (self._images, answer.decision) == (DEFECTIVE, DEFECTIVE)
        return {
            "category": category,
            "score": answer.score,
            "threshold": answer.threshold,
            "threshold_from": answer.threshold_from,
            "decision": answer.decision,
            "image_sha256": sha256,
            "width": width,
            "height": height,
            "path": self._store_image(data, sha256) if store else None,
        }

    def _append(self, lines: bytes) -> None:
        path = self._folder / f"{datetime.now(UTC):%Y-%m-%d}.jsonl"
        append_lines(path, lines, mode=0o640)

    def _store_image(self, data: bytes, sha256: str) -> str | None:
        """Store an image; returns its path in the folder, ``None`` if it was not stored."""
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
            self._warn_once("images", f"images are not stored: {error}")
            return None
        self._active_warnings.discard("images")
        return name

    def _has_room(self, size: int) -> bool:
        with self._lock:
            if time.monotonic() - self._measured_at > RECOUNT_S:
                self._stored_bytes = _size(self._folder / "images")
                self._measured_at = time.monotonic()
            if self._stored_bytes + size <= self._limit:
                self._stored_bytes += size
                return True
        self._warn_once(
            "images",
            f"images are not stored: those in {self._folder / 'images'} take "
            f"{self._limit / 1e9:g} GB; remove old ones, or raise {LIMIT_VARIABLE}",
        )
        return False

    def _warn_once(self, kind: str, message: str) -> None:
        if kind not in self._active_warnings:
            self._active_warnings.add(kind)
            logger.warning("%s", message)


def _limit() -> float:
    text = os.environ.get(LIMIT_VARIABLE) or LIMIT_GB
    try:
        limit = float(text)
    except ValueError:
        limit = -1
    if not 0 < limit < float("inf"):
        msg = f"{LIMIT_VARIABLE} is {text!r}; set it to a number of gigabytes above 0"
        raise ConfigurationError(msg)
    return limit


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
