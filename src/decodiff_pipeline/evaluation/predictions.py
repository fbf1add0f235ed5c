"""Anomaly maps, scores and reconstructions of a whole data set, on disk."""

from __future__ import annotations

import hashlib
import json
import math
import re
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.data.atomic import replacing_folder
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

INDEX = "index.parquet"
ABOUT = "about.json"
KINDS: dict[str, np.dtype[Any]] = {"maps": np.dtype("<f4"), "reconstructions": np.dtype("u1")}
COLOURS: dict[str, tuple[int, ...]] = {"maps": (), "reconstructions": (3,)}
PLACE = ["map_offset", "map_height", "map_width"]
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

    Per category there is a `<category>.maps.npy` (float32 (P,)) and a
    `<category>.reconstructions.npy` (uint8 (P, 3)), the pixels of all its images one after the
    other; `index.parquet` has a row per image: the manifest's columns, `score` (float32), `row`,
    its number in its category, and where its pixels are, `map_offset`, `map_height` and
    `map_width`; `about.json` says which model made them.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def index(self) -> pd.DataFrame:
        """The table of images, in the order of the manifest.

        Raises:
            DataError: There are no predictions, or their index is damaged.
        """
        with self._reading(INDEX) as path:
            return pd.read_parquet(path)

    def about(self) -> dict[str, Any]:
        """Which model made the predictions, and from what; see `scoring.describe`."""
        with self._reading(ABOUT) as path:
            return json.loads(path.read_text(encoding="utf-8"))

    def geometry(self) -> PreprocessConfig:
        """How images were fitted into the squares that the maps are of."""
        return PreprocessConfig(**self.about()["preprocessing"])

    def maps(self, category: str) -> StoredArrays:
        """Anomaly maps of a category by row, memory-mapped float32 (h, w) each."""
        return self._arrays(category, "maps")

    def reconstructions(self, category: str) -> StoredArrays:
        """Reconstructions of a category by row, memory-mapped uint8 (h, w, 3) each."""
        return self._arrays(category, "reconstructions")

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

    def _arrays(self, category: str, kind: str) -> StoredArrays:
        wanted = [("category", "==", category)]
        with self._reading(INDEX) as path:
            rows = pd.read_parquet(path, columns=["row", *PLACE], filters=wanted)
        places = rows.sort_values("row")[PLACE].to_numpy(np.int64)
        with self._reading(f"{file_stem(category)}.{kind}.npy") as path:
            return StoredArrays(np.load(path, mmap_mode="r", allow_pickle=False), places)

    @contextmanager
    def _reading(self, name: str) -> Iterator[Path]:
        path = self.path / name
        cure = f"run {kedro_run('evaluation')} to make"
        if not path.is_file():
            raise DataError(f"there is no {path}; {cure} the predictions")
        try:
            yield path
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path} cannot be read ({error}); {cure} it again") from error

    def __repr__(self) -> str:
        return f"PredictionStore({str(self.path)!r})"


class StoredArrays:
    """Arrays of different sizes in one file, given by row without copying them.

    Args:
        pixels: All pixels, (P,) or (P, 3).
        places: int64 (N, 3): offset, height and width of each array.

    Raises:
        ValueError: There are not as many pixels as the places say.
    """

    def __init__(self, pixels: np.ndarray, places: np.ndarray) -> None:
        offsets, heights, widths = places.T
        expected = int((heights * widths).sum())
        if len(pixels) != expected or (offsets + heights * widths > expected).any():
            raise ValueError(f"it holds {len(pixels)} pixels where {INDEX} says {expected}")
        self._pixels = pixels
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, row: int) -> np.ndarray:
        """The array of an image as (h, w) or (h, w, 3), memory-mapped."""
        offset, height, width = (int(number) for number in self._places[row])
        part = self._pixels[offset : offset + height * width]
        return part.reshape(height, width, *part.shape[1:])


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
    def category(self, name: str, count: int) -> Iterator[CategoryWriter]:
        """Open the files of a category.

        Args:
            name: The category; each may come once.
            count: Images that will be appended.

        Raises:
            ValueError: Fewer or more images than ``count`` were appended.
        """
        with ExitStack() as stack:
            files: dict[str, BinaryIO] = {}
            for kind in KINDS:
                path = self._folder / f"{file_stem(name)}.{kind}.npy"
                files[kind] = stack.enter_context(path.open("xb"))
                _write_header(files[kind], kind, 0)
            writer = CategoryWriter(files)
            yield writer
            for kind, file in files.items():
                file.seek(0)
                _write_header(file, kind, writer.pixels)
        if writer.count != count:
            raise ValueError(f"category {name}: {writer.count} of {count} images were written")
        self._rows += writer.rows

    def finish(self) -> None:
        """Write the index."""
        columns = ["category", "split", "label", "path", "score", "row", *PLACE]
        nothing = pd.DataFrame(columns=columns)
        index = pd.concat(self._rows).sort_index() if self._rows else nothing
        index.to_parquet(self._folder / INDEX, index=False)


class CategoryWriter:
    """Appends batches to the open files of one category."""

    def __init__(self, files: dict[str, BinaryIO]) -> None:
        self._files = files
        self.count = 0
        self.pixels = 0
        self.rows: list[pd.DataFrame] = []

    def append(
        self,
        manifest: pd.DataFrame,
        *,
        maps: Sequence[np.ndarray] | np.ndarray,
        scores: np.ndarray,
        reconstructions: Sequence[np.ndarray] | np.ndarray,
    ) -> None:
        """Append a batch.

        Args:
            manifest: The rows of its N images.
            maps: float32 (h, w) of each image.
            scores: float32 (N,).
            reconstructions: uint8 (h, w, 3) of each image.
        """
        shapes = [np.shape(anomaly_map) for anomaly_map in maps]
        ends = self.pixels + np.cumsum([math.prod(shape) for shape in shapes])
        self.rows.append(
            manifest.assign(
                score=np.asarray(scores, np.float32),
                row=np.arange(self.count, self.count + len(manifest)),
                map_offset=[self.pixels, *ends[:-1]],
                map_height=[height for height, _ in shapes],
                map_width=[width for _, width in shapes],
            )
        )
        for kind, arrays in (("maps", maps), ("reconstructions", reconstructions)):
            for array in arrays:
                self._files[kind].write(np.ascontiguousarray(array, dtype=KINDS[kind]).data)
        self.count += len(manifest)
        self.pixels = int(ends[-1])


def _write_header(file: BinaryIO, kind: str, pixels: int) -> None:
    """Of as many bytes whatever the count: numpy leaves room for the first axis to grow."""
    header = {"descr": KINDS[kind].str, "fortran_order": False, "shape": (pixels, *COLOURS[kind])}
    np.lib.format.write_array_header_1_0(file, header)
