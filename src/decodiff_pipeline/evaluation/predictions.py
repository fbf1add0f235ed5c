"""Stores the anomaly maps, scores and reconstructions of a data set on disk."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import numpy as np
import pandas as pd

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.data.atomic import replacing_folder
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.regions import Region, read_regions
from decodiff_pipeline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

INDEX = "index.parquet"
ABOUT = "about.json"
KINDS: dict[str, np.dtype[Any]] = {"maps": np.dtype("<f4"), "reconstructions": np.dtype("u1")}
COLOURS: dict[str, tuple[int, ...]] = {"maps": (), "reconstructions": (3,)}
PLACE = ["map_offset", "map_height", "map_width"]
PART = "part"
COLUMNS = ["category", "split", "label", "path", "score", *PLACE, PART]
# Map, score and reconstruction of an image.
Found = tuple[np.ndarray, float | np.float32, np.ndarray]
PLAIN_NAME = re.compile(r"[a-z0-9_][a-z0-9_-]{0,63}")


def file_stem(category: str) -> str:
    """A file name for a category: the name if it is safe on all systems, else a slug and a hash.

    Capitals are unsafe, since some file systems do not distinguish case.
    """
    if PLAIN_NAME.fullmatch(category):
        return category
    slug = re.sub(r"[^a-z0-9_]+", "-", category.lower()).strip("-")[:40] or "category"
    return f"{slug}.{hashlib.sha256(category.encode()).hexdigest()[:10]}"


class PredictionStore:
    """A folder of predictions, read through memory maps.

    Each category has the files `<category>.maps.npy` (float32 (P,)) and
    `<category>.reconstructions.npy` (uint8 (P, 3)) with the concatenated pixels of its images.
    `index.parquet` has a row per image: the manifest's columns, `score` (float32), `row` (its
    number in its category), and the place of its pixels: `map_offset`, `map_height`, `map_width`.
    `about.json` identifies the model. The arrays of many images, or of several processes, lie in
    subfolders (`00000`, …), which the column `part` names.
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
        """Facts about the model and the images; see `scoring.describe`."""
        with self._reading(ABOUT) as path:
            return json.loads(path.read_text(encoding="utf-8"))

    def geometry(self) -> PreprocessConfig:
        """The preprocessing of the images."""
        return PreprocessConfig(**self.about()["preprocessing"])

    def regions(self) -> dict[str, Region]:
        """Category → its region; categories without one are missing."""
        return read_regions(self.about())

    def maps(self, category: str) -> StoredArrays:
        """Anomaly maps of a category by row, float32 (h, w)."""
        return self._arrays(category, "maps")

    def reconstructions(self, category: str) -> StoredArrays:
        """Reconstructions of a category by row, uint8 (h, w, 3)."""
        return self._arrays(category, "reconstructions")

    @property
    def work_folder(self) -> Path:
        """The folder of unfinished parts."""
        return self.path.with_name(f".{self.path.name}.parts")

    def write(self, about: dict[str, Any], rows: pd.DataFrame, found: Iterator[Found]) -> None:
        """Replace all predictions; see :meth:`replace` and :func:`write_part`."""
        part = self.work_folder / "whole"
        with self.reporting(), replacing_folder(part) as folder:
            write_part(folder, rows, found)
        self.replace(about, [part], rows.index)

    def replace(self, about: dict[str, Any], parts: Sequence[Path], order: pd.Index) -> None:
        """Replace all predictions by folders that :func:`write_part` wrote.

        Args:
            about: JSON-ready facts about the model; ``preprocessing`` holds the fields of its
                `PreprocessConfig`.
            parts: The folders, below :attr:`work_folder`, which is removed.
            order: The index label of each of their images.

        Raises:
            DataError: The disk is full or cannot be written; the old predictions are kept.
        """
        with self.reporting(), replacing_folder(self.path) as folder:
            (folder / ABOUT).write_text(json.dumps(about, indent=2), encoding="utf-8")
            tables = []
            for number, part in enumerate(parts):
                name = f"{number:05d}" if len(parts) > 1 else ""
                tables.append(pd.read_parquet(part / INDEX).assign(**{PART: name}))
                (folder / name).mkdir(exist_ok=True)
                for file in part.glob("*.npy"):
                    file.rename(folder / name / file.name)
            index = pd.concat(tables) if tables else pd.DataFrame(columns=COLUMNS)
            index["row"] = index.groupby("category").cumcount()
            index.set_index(order).sort_index().to_parquet(folder / INDEX, index=False)
        shutil.rmtree(self.work_folder, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder, until the block or this process ends.

        Raises:
            DataError: Another run holds the lock.
        """
        lock = filelock.FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=0)
        with self.reporting():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire()
            except filelock.Timeout as error:
                msg = f"another run is scoring into {self.path}; wait for it to end"
                raise DataError(msg) from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Context that converts errors of the file system.

        Raises:
            DataError: The disk is full or cannot be written.
        """
        try:
            yield
        except OSError as error:
            raise DataError(
                f"cannot write the predictions to {self.path} ({error.strerror or error}); "
                "free some space on the disk and run again; the earlier predictions are kept"
            ) from error

    def _arrays(self, category: str, kind: str) -> StoredArrays:
        wanted = [("category", "==", category)]
        with self._reading(INDEX) as path:
            rows = pd.read_parquet(path, filters=wanted).sort_values("row")
        numbers, names = rows[PART].factorize() if PART in rows else (0, [""])
        places = rows[PLACE].assign(part=numbers).to_numpy(np.int64)
        files = []
        for name in names:
            with self._reading(Path(name) / f"{file_stem(category)}.{kind}.npy") as path:
                files.append(np.load(path, mmap_mode="r", allow_pickle=False))
        with self._reading(INDEX):
            return StoredArrays(files, places)

    @contextmanager
    def _reading(self, name: str | Path) -> Iterator[Path]:
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
    """Arrays of different sizes in files with concatenated pixels, accessed by row without a copy.

    Args:
        files: All pixels, (P,) or (P, 3) each.
        places: Offset, height and width of each array, and the index of its file, int64 (N, 4).

    Raises:
        ValueError: A file has another number of pixels than the places say.
    """

    def __init__(self, files: Sequence[np.ndarray], places: np.ndarray) -> None:
        for number, pixels in enumerate(files):
            offsets, heights, widths = places[places[:, 3] == number, :3].T
            expected = int((heights * widths).sum())
            if len(pixels) != expected or (offsets + heights * widths > expected).any():
                raise ValueError(f"it holds {len(pixels)} pixels where {INDEX} says {expected}")
        self._files = files
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, row: int) -> np.ndarray:
        """The array of an image as (h, w) or (h, w, 3), memory-mapped."""
        offset, height, width, number = (int(value) for value in self._places[row])
        part = self._files[number][offset : offset + height * width]
        return part.reshape(height, width, *part.shape[1:])


def write_part(folder: Path, rows: pd.DataFrame, found: Iterator[Found]) -> None:
    """Write the predictions of images in constant memory.

    Plain writes are used, since a full disk raises an error with them, but crashes a memory map.

    Args:
        rows: Manifest rows of the images, grouped by category.
        found: Map, float32 (h, w), score, and reconstruction, uint8 (h, w, 3), of each image, in
            the same order.

    Raises:
        ValueError: There are fewer predictions than images.
    """
    tables = []
    for category, group in rows.groupby("category", sort=False):
        scores, shapes = [], []
        with ExitStack() as stack:
            files: dict[str, BinaryIO] = {}
            for kind in KINDS:
                path = folder / f"{file_stem(str(category))}.{kind}.npy"
                files[kind] = stack.enter_context(path.open("xb"))
                _write_header(files[kind], kind, 0)
            for anomaly_map, score, reconstruction in islice(found, len(group)):
                scores.append(score)
                shapes.append(np.shape(anomaly_map))
                for kind, array in (("maps", anomaly_map), ("reconstructions", reconstruction)):
                    files[kind].write(np.ascontiguousarray(array, dtype=KINDS[kind]).data)
            ends = np.cumsum([0, *map(math.prod, shapes)])
            for kind, file in files.items():
                file.seek(0)
                _write_header(file, kind, int(ends[-1]))
        heights, widths = zip(*shapes, strict=True)
        tables.append(
            group.assign(
                score=np.array(scores, np.float32),
                map_offset=ends[:-1],
                map_height=heights,
                map_width=widths,
            )
        )
    pd.concat(tables).to_parquet(folder / INDEX, index=False)


def _write_header(file: BinaryIO, kind: str, pixels: int) -> None:
    """Write a header of constant length: numpy leaves room for the first axis to grow."""
    header = {"descr": KINDS[kind].str, "fortran_order": False, "shape": (pixels, *COLOURS[kind])}
    np.lib.format.write_array_header_1_0(file, header)
