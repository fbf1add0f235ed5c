"""Review of served images: their order, a journal of verdicts, and their addition to the data set.

The folder ``reviews`` in the request log's folder contains ``journal.jsonl``, one line per action,
and the masks.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from decodiff_pipeline.data import add_reviewed
from decodiff_pipeline.data.atomic import replacing
from decodiff_pipeline.data.layouts import get_layout
from decodiff_pipeline.data.reviewed_labels import COLUMNS
from decodiff_pipeline.deco.config import UNKNOWN
from decodiff_pipeline.errors import DataError
from decodiff_pipeline.monitoring.source import log_files, parse_line
from decodiff_pipeline.registry import audit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from decodiff_pipeline.app.project import AppProject

GOOD, DEFECTIVE, SKIP = "good", "defective", "skip"
FOLDER, JOURNAL = "reviews", "journal.jsonl"
MAX_LINES = 50_000  # newest lines of the log that are read
MAX_DRAWING = 1_000_000  # characters


@dataclass(frozen=True)
class ServedImage:
    """An image that a server scored and kept, with the latest scores."""

    sha256: str
    path: str  # relative to the request log's folder
    category: str
    score: float | None
    threshold: float | None
    decision: str | None
    time: str
    unusual: float = 0.0  # robust deviations from the monitoring's reference, 0 if unreported

    @property
    def margin(self) -> float:
        """abs(score - threshold) / threshold; 0 for unknown categories, inf without threshold."""
        if self.decision == UNKNOWN:
            return 0.0
        if self.score is None or self.threshold is None:
            return float("inf")
        return abs(self.score - self.threshold) / max(self.threshold, 1e-6)


@dataclass(frozen=True)
class Verdict:
    """A person's verdict on an image."""

    sha256: str
    path: str
    category: str
    verdict: str  # good, defective or skip
    by: str
    at: str
    defect_type: str = ""
    mask: str = ""  # path relative to the request log's folder; "" for none


def served_images(log: Path, deviations: Mapping[str, float]) -> list[ServedImage]:
    """The images that a request log kept, without repetitions, the newest first.

    Args:
        deviations: Path → deviation, as from `unusual_images`.
    """
    images: dict[str, ServedImage] = {}
    for line in islice(_newest_lines(log), MAX_LINES):
        sha256, path = line.get("image_sha256"), line.get("path")
        if not isinstance(path, str) or sha256 in images or not (log / path).is_file():
            continue
        names = ("category", "score", "threshold", "decision", "time")
        facts: dict[str, Any] = {name: line.get(name) for name in names}
        images[str(sha256)] = ServedImage(
            str(sha256), path, **facts, unusual=deviations.get(path, 0.0)
        )
    return list(images.values())


def sort_images(images: Iterable[ServedImage], *, unusual_first: bool) -> list[ServedImage]:
    """Sort the images for review.

    Args:
        unusual_first: Sort by the deviation in the monitoring, largest first; else by `margin`,
            smallest first.
    """
    if unusual_first:
        return sorted(images, key=lambda image: (-image.unusual, image.margin, image.time))
    return sorted(images, key=lambda image: (image.margin, -image.unusual, image.time))


def unusual_images(monitoring: Path) -> dict[str, float]:
    """Path → deviation of the most unusual images in the last monitoring result; may be empty."""
    try:
        unusual = json.loads(monitoring.read_bytes())["unusual"]
        return {str(image["path"]): float(image["deviations"]) for image in unusual}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


class Reviews:
    """The review journal of a request log: verdicts, undone verdicts, and added images."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._journal = log / FOLDER / JOURNAL

    def pending(self) -> dict[str, Verdict]:
        """SHA-256 → verdict, for images not yet added to the data set, in the order of review."""
        return self._read()[0]

    def reviewed(self) -> set[str]:
        """SHA-256 of every image that is reviewed or added to the data set."""
        pending, added = self._read()
        return {*pending, *added}

    def record(self, verdict: Verdict, mask: np.ndarray | None, project: AppProject) -> None:
        """Check whether the image can be added to the data set, and write the verdict.

        Args:
            mask: Mask of the defect, bool (height, width) in the image's pixels, or ``None``.

        Raises:
            DataError: The image cannot be added, or the journal cannot be written.
        """
        if mask is not None and verdict.verdict == DEFECTIVE:
            verdict = replace(verdict, mask=f"{FOLDER}/{verdict.sha256}_mask.png")
            encoded = io.BytesIO()
            Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(encoded, "PNG")
            with replacing(self.log / verdict.mask) as temporary:
                temporary.write_bytes(encoded.getvalue())
        if verdict.verdict != SKIP:
            try:
                self._plan([verdict], project)
            except DataError as error:  # about line 2 of the temporary table
                message = str(error).rpartition("line 2: ")[2]
                message = message.replace(", and name it in the column mask", "")
                raise DataError(message.replace("take the line out", "skip it")) from error
        self._append({"verdict": asdict(verdict)})

    def undo(self, by: str) -> Verdict:
        """Undo the last verdict of a person.

        Raises:
            DataError: The person has no verdict that is not yet added to the data set.
        """
        own = [verdict for verdict in self.pending().values() if verdict.by == by]
        if not own:
            raise DataError("nothing to undo: you have no verdict that is not yet added")
        self._append({"undo": own[-1].sha256, "by": by, "at": _now()})
        return own[-1]

    def add(self, by: str, project: AppProject) -> int:
        """Add the reviewed images to the data set, and a line to the audit log.

        Returns:
            Number of added images.

        Raises:
            DataError: There are no reviewed images, or one cannot be added; then none is added.
        """
        verdicts = [given for given in self.pending().values() if given.verdict != SKIP]
        if not verdicts:
            raise DataError("there is no reviewed image to add")
        plan = self._plan(verdicts, project)
        add_reviewed.add(plan, project.raw)
        self._append({"added": [verdict.sha256 for verdict in verdicts], "by": by, "at": _now()})
        images = [asdict(verdict) for verdict in verdicts]
        audit.append(project.audit_log, audit.record("review", {}, reviewed_by=by, images=images))
        return len(plan.additions)

    def _plan(self, verdicts: list[Verdict], project: AppProject) -> Any:
        """Run `add_reviewed.plan` on a temporary table of the verdicts."""
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder, "reviewed.csv")
            with table.open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", restval="")
                writer.writeheader()
                writer.writerows(asdict(verdict) for verdict in verdicts)
            return add_reviewed.plan(table, self.log, project.raw, get_layout(project.layout))

    def _read(self) -> tuple[dict[str, Verdict], set[str]]:
        pending: dict[str, Verdict] = {}
        added: set[str] = set()
        if self._journal.is_file():
            for text in self._journal.read_text(encoding="utf-8").splitlines():
                line = parse_line(text) or {}  # incomplete, as after a full disk
                if "verdict" in line:
                    verdict = Verdict(**line["verdict"])
                    pending.pop(verdict.sha256, None)
                    pending[verdict.sha256] = verdict
                elif "undo" in line:
                    pending.pop(line["undo"], None)
                else:
                    added |= set(line.get("added", ()))
                    pending = {key: given for key, given in pending.items() if key not in added}
        return pending, added

    def _append(self, line: dict[str, Any]) -> None:
        try:
            audit.append(self._journal, line)
        except OSError as error:
            raise DataError(f"{self._journal} cannot be written ({error.strerror})") from error


def make_verdict(
    served: ServedImage, verdict: str, by: str, category: str, defect_type: str
) -> Verdict:
    """A verdict with the current time; only a defective image keeps its type of defect."""
    kind = defect_type.strip() if verdict == DEFECTIVE else ""
    return Verdict(served.sha256, served.path, category, verdict, by, _now(), kind)


def parse_drawing(text: str) -> tuple[str, list[Any]]:
    """Parse the JSON that the page sends with a verdict.

    Returns:
        SHA-256 of the displayed image, and the shapes drawn on it: ``rectangle`` (x, y, width,
        height), or ``stroke`` (points x, y) and ``width``, in the image's pixels.

    Raises:
        DataError: The text is invalid, or longer than ``MAX_DRAWING``.
    """
    try:
        drawing = json.loads(text[:MAX_DRAWING])
        return str(drawing["image"]), list(drawing["shapes"])
    except (ValueError, TypeError, KeyError) as error:
        raise DataError("the drawing cannot be read, or is too long; draw it again") from error


def rasterise(shapes: list[Any], size: tuple[int, int]) -> np.ndarray | None:
    """Rasterise the shapes drawn on an image.

    Args:
        shapes: As returned by `parse_drawing`.
        size: Width and height of the image in pixels.

    Returns:
        bool (height, width), or ``None`` if the mask is empty.

    Raises:
        DataError: A shape is invalid.
    """
    mask = Image.new("1", size)
    pen = ImageDraw.Draw(mask)
    try:
        for shape in shapes:
            if "rectangle" in shape:
                left, top, width, height = shape["rectangle"]
                right, bottom = max(round(left + width), round(left) + 1), round(top + height)
                corner = right - 1, max(bottom, round(top) + 1) - 1
                pen.rectangle((round(left), round(top), *corner), fill=1)
            else:
                width = max(round(min(shape["width"], *size)), 1)
                points = [(float(x), float(y)) for x, y in shape["stroke"]]
                pen.line(points, fill=1, width=width)
                for x, y in points:  # round ends and joins
                    pen.circle((x, y), width / 2, fill=1)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise DataError("the drawing cannot be read; draw it again") from error
    pixels = np.asarray(mask)
    return pixels if pixels.any() else None


def _newest_lines(log: Path) -> Iterator[dict[str, Any]]:
    for file in reversed(log_files(log)):
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
        yield from (parse_line(text) or {} for text in reversed(lines))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
