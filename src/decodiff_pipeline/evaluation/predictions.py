"""Anomaly maps, scores and reconstructions of a whole data set, on disk."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from decodiff_pipeline.data.atomic import replacing_folder
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

INDEX = "index.parquet"
ABOUT = "about.json"
KINDS: dict[str, np.dtype[Any]] = {"maps": np.dtype("<f4"), "reconstructions": np.dtype("u1")}
PLAIN_NAME = re.compile(r"[a-z0-9_][a-z0-9_-]{0,63}")


def file_stem(category: str) -> str:
    """A file name for a category: itself where that is safe everywhere, else a slug and a hash.

    Capitals count as unsafe, since `Cap` and `cap` are one file on some systems.
    """
    if PLAIN_NAME.fullmatch(category):
        return category
    slug = re.sub(r"[^a-z0-9_]+", "-", category.lower()).strip("-")[:40] or "category"
    return f"{slug}.{hashlib.sha256(category.encode()).hexdigest()[:10]}"


class PredictionStore:
    """A handle on a folder of predictions: cheap to make, reads through memory maps.

    Per category there is a `<category>.maps.npy` (float32 (N, H, W)) and a
    `<category>.reconstructions.npy` (uint8 (N, H, W, 3)); `index.parquet` has a row per image:
    the manifest's columns, `score` (float32) and `row`, its place in its category's arrays;
    `about.json` says which model made them.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def index(self) -> pd.DataFrame:
        """The table of images, in the order of the manifest.

        Raises:
            DataError: There are no predictions, or their index is damaged.
        """
        try:
            return pd.read_parquet(self._existing(INDEX))
        except (OSError, ValueError) as error:
            raise self._damaged(INDEX, error) from error

    def about(self) -> dict[str, Any]:
        """Which model made the predictions, and from what; see `scoring.describe`."""
        try:
            return json.loads(self._existing(ABOUT).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self._damaged(ABOUT, error) from error

    def geometry(self) -> PreprocessConfig:
        """Resize and crop that the maps were made with."""
        return PreprocessConfig(**self.about()["preprocessing"])

    def maps(self, category: str) -> np.ndarray:
        """Anomaly maps of a category, memory-mapped float32 (N, H, W)."""
        return self._array(category, "maps")

    def reconstructions(self, category: str) -> np.ndarray:
        """Reconstructions of a category, memory-mapped uint8 (N, H, W, 3)."""
        return self._array(category, "reconstructions")

    @contextmanager
    def writing(self, about: dict[str, Any]) -> Iterator[PredictionWriter]:
        """Replace all predictions, or none of them if the block raises or is killed.

        Args:
            about: JSON-ready facts about the model; ``preprocessing`` holds the fields of its
                `PreprocessConfig`.

        Raises:
            DataError: The disk is full or cannot be written; the old predictions stay.
        """
        try:
            with replacing_folder(self.path) as folder:
                (folder / ABOUT).write_text(json.dumps(about, indent=2), encoding="utf-8")
                writer = PredictionWriter(folder)
                yield writer
                writer.finish()
        except OSError as error:
            raise DataError(
                f"cannot write the predictions to {self.path} ({error.strerror or error}); "
                "make room on the disk and run again, nothing old was lost"
            ) from error

    def _array(self, category: str, kind: str) -> np.ndarray:
        name = f"{file_stem(category)}.{kind}.npy"
        try:
            return np.load(self._existing(name), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise self._damaged(name, error) from error

    def _existing(self, name: str) -> Path:
        path = self.path / name
        if not path.is_file():
            raise DataError(
                f"there is no {path}; run kedro run --pipeline evaluation to make the predictions"
            )
        return path

    def _damaged(self, name: str, error: Exception) -> DataError:
        return DataError(
            f"{self.path / name} cannot be read ({error}); "
            "run kedro run --pipeline evaluation to make it again"
        )

    def __repr__(self) -> str:
        return f"PredictionStore({str(self.path)!r})"


class PredictionWriter:
    """Appends predictions, one category after the other, in constant memory.

    Arrays go through plain writes: a full disk is an error then, where a memory map is a crash.

    Args:
        folder: An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: list[pd.DataFrame] = []

    @contextmanager
    def category(self, name: str, count: int, image_size: int) -> Iterator[CategoryWriter]:
        """Open the files of a category.

        Args:
            name: The category; each may come once.
            count: Images that will be appended.
            image_size: Side of the maps in pixels.

        Raises:
            ValueError: Fewer or more images than ``count`` were appended.
        """
        shapes = {
            "maps": (count, image_size, image_size),
            "reconstructions": (count, image_size, image_size, 3),
        }
        with ExitStack() as stack:
            files: dict[str, BinaryIO] = {}
            for kind, shape in shapes.items():
                path = self._folder / f"{file_stem(name)}.{kind}.npy"
                files[kind] = stack.enter_context(path.open("xb"))
                header = {"descr": KINDS[kind].str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(files[kind], header)
            writer = CategoryWriter(files)
            yield writer
        if writer.count != count:
            raise ValueError(f"category {name}: {writer.count} of {count} images were written")
        self._rows += writer.rows

    def finish(self) -> None:
        """Write the index."""
        nothing = pd.DataFrame(columns=["category", "split", "label", "path", "score", "row"])
        index = pd.concat(self._rows).sort_index() if self._rows else nothing
        index.to_parquet(self._folder / INDEX, index=False)


class CategoryWriter:
    """Appends batches to the open files of one category."""

    def __init__(self, files: dict[str, BinaryIO]) -> None:
        self._files = files
        self.count = 0
        self.rows: list[pd.DataFrame] = []

    def append(
        self,
        manifest: pd.DataFrame,
        *,
        maps: np.ndarray,
        scores: np.ndarray,
        reconstructions: np.ndarray,
    ) -> None:
        """Append a batch.

        Args:
            manifest: The rows of its N images.
            maps: float32 (N, H, W).
            scores: float32 (N,).
            reconstructions: uint8 (N, H, W, 3).
        """
        rows = np.arange(self.count, self.count + len(manifest))
        self.rows.append(manifest.assign(score=np.asarray(scores, np.float32), row=rows))
        for kind, array in (("maps", maps), ("reconstructions", reconstructions)):
            array = np.ascontiguousarray(array, dtype=KINDS[kind])  # noqa: PLW2901
            self._files[kind].write(array.data)
        self.count += len(manifest)
