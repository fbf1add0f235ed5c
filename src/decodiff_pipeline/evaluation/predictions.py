"""Anomaly maps, scores and reconstructions of a whole data set, on disk."""

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
    `map_width`; `about.json` says which model made them. Of many images, or where several
    processes scored, the arrays lie in folders, `00000` and so on, which the column `part` names.
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

    def regions(self) -> dict[str, Region]:
        """What of the images of a category counted; all where it is not in here."""
        return read_regions(self.about())

    def maps(self, category: str) -> StoredArrays:
        """Anomaly maps of a category by row, memory-mapped float32 (h, w) each."""
        return self._arrays(category, "maps")

    def reconstructions(self, category: str) -> StoredArrays:
        """Reconstructions of a category by row, memory-mapped uint8 (h, w, 3) each."""
        return self._arrays(category, "reconstructions")

    @property
    def work_folder(self) -> Path:
        """Where the parts lie until :meth:`replace` takes them."""
        return self.path.with_name(f".{self.path.name}.parts")

    def write(self, about: dict[str, Any], rows: pd.DataFrame, found: Iterator[Found]) -> None:
        """Replace all predictions; see :meth:`replace` and :func:`write_part`."""
        part = self.work_folder / "whole"
        with self.reporting(), replacing_folder(part) as folder:
            write_part(folder, rows, found)
        self.replace(about, [part], rows.index)

    def replace(self, about: dict[str, Any], parts: Sequence[Path], order: pd.Index) -> None:
        """Replace all predictions by those of some folders that :func:`write_part` filled.

        Args:
            about: JSON-ready facts about the model; ``preprocessing`` holds the fields of its
                `PreprocessConfig`.
            parts: The folders, below :attr:`work_folder`, which is removed.
            order: The place in the index of each of their images.

        Raises:
            DataError: The disk is full or cannot be written; the old predictions stay.
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
        """Keep other runs from scoring into the folder, until the block or this process ends.

        Raises:
            DataError: Another run is scoring into it.
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
        """Within the block an error of the file system says what to do.

        Raises:
            DataError: The disk is full or cannot be written.
        """
        try:
            yield
        except OSError as error:
            raise DataError(
                f"cannot write the predictions to {self.path} ({error.strerror or error}); "
                "make room on the disk and run again, nothing old was lost"
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
    """Arrays of different sizes in some files, given by row without copying them.

    Args:
        files: All pixels, (P,) or (P, 3) each.
        places: int64 (N, 4): offset, height and width of each array, and which file it is in.

    Raises:
        ValueError: There are not as many pixels as the places say.
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
    """Write the predictions of some images in constant memory.

    Arrays go through plain writes: a full disk is an error then, where a memory map is a crash.

    Args:
        folder: An empty folder.
        rows: Manifest rows of the images, categories together.
        found: For each image its map, float32 (h, w), its score and its reconstruction, uint8
            (h, w, 3), in the same order.

    Raises:
        ValueError: There are fewer predictions than images.
    """
    tables = []
    for category, own in rows.groupby("category", sort=False):
        scores, shapes = [], []
        with ExitStack() as stack:
            files: dict[str, BinaryIO] = {}
            for kind in KINDS:
                path = folder / f"{file_stem(str(category))}.{kind}.npy"
                files[kind] = stack.enter_context(path.open("xb"))
                _write_header(files[kind], kind, 0)
            for anomaly_map, score, reconstruction in islice(found, len(own)):
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
            own.assign(
                score=np.array(scores, np.float32),
                map_offset=ends[:-1],
                map_height=heights,
                map_width=widths,
            )
        )
    pd.concat(tables).to_parquet(folder / INDEX, index=False)


def _write_header(file: BinaryIO, kind: str, pixels: int) -> None:
    """Of as many bytes whatever the count: numpy leaves room for the first axis to grow."""
    header = {"descr": KINDS[kind].str, "fortran_order": False, "shape": (pixels, *COLOURS[kind])}
    np.lib.format.write_array_header_1_0(file, header)
