"""Disk cache of latents: keyed by content, memory-mapped, verified by SHA-256."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import contextmanager, suppress
from dataclasses import asdict
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

import filelock
import pandas as pd

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.data.atomic import append_lines, replacing
from decodiff_pipeline.deco.digests import file_sha256
from decodiff_pipeline.errors import CacheError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import torch

    from decodiff_pipeline.data.transforms import AugmentationConfig
    from decodiff_pipeline.deco.config import PreprocessConfig

FORMAT = 1
INDEX = "index.parquet"
JOURNAL = "shards.jsonl"
COLUMNS = ["key", "shard", "row", "shard_sha256"]


class LatentMoments(NamedTuple):
    """Mean and standard deviation of the posterior of N latents."""

    mean: torch.Tensor  # float32 (N, C, h, w)
    std: torch.Tensor  # float32 (N, C, h, w); (N, 0, h, w) if the autoencoder has no posterior


def latent_key(
    image_sha256: str,
    view: int,
    *,
    autoencoder_digest: str,
    geometry: PreprocessConfig,
    augmentation: AugmentationConfig,
    dtype: str,
) -> str:
    """Key of a latent: SHA-256 of everything that determines its values.

    Args:
        image_sha256: SHA-256 of the image, or another text that identifies its pixels.
        view: Number of the augmented view. View 0 is the image itself, without augmentation.
    """
    parts = {
        "format": FORMAT,
        "image": image_sha256,
        "view": view,
        "autoencoder": autoencoder_digest,
        "geometry": geometry.facts(),
        "augmentation": asdict(augmentation) if view else None,
        "dtype": dtype,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def shard_name(number: int, kind: str = "latents") -> str:
    """File name of a shard."""
    return f"{kind}-{number:05d}.safetensors"


class LatentCache:
    """A folder of latents: safetensors shards and a parquet index.

    A shard is written completely and then added to a journal; :meth:`merge_journal` moves the
    journal into the index. A killed run therefore loses only its unfinished shards. Nothing is
    overwritten or removed: latents of other images, autoencoders or sizes stay available.

    Args:
        path: The folder; it may be missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def index(self) -> pd.DataFrame:
        """Table of the cached latents: ``key``, ``shard``, ``row``, ``shard_sha256``.

        Latents of a deleted shard are left out, so that they are encoded again.

        Raises:
            CacheError: The index cannot be read.
        """
        file = self.path / INDEX
        parts = self._journal()
        try:
            if file.is_file():
                parts.insert(0, pd.read_parquet(file, columns=COLUMNS))
        except Exception as error:
            msg = f"latent cache index {file} is damaged; delete {self.path} to encode again"
            raise CacheError(msg) from error
        if not parts:
            return pd.DataFrame(columns=COLUMNS)
        index = pd.concat(parts, ignore_index=True)
        shards = index["shard"].unique()
        present = [shard for shard in shards if (self.path / shard).is_file()]
        return index if len(present) == len(shards) else index[index["shard"].isin(present)]

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The keys that are not in the cache, in order, without repeats."""
        missing = dict.fromkeys(keys)
        for key in self.index()["key"]:
            missing.pop(key, None)
        return [*missing]

    def append(
        self, keys: Sequence[str], moments: LatentMoments, dtype: str, shard: str | None = None
    ) -> None:
        """Write a shard and add it to the journal.

        Args:
            dtype: Stored data type.
            shard: File name, required if several processes write; by default, the next number.

        Raises:
            CacheError: The write fails, for example on a full disk; earlier latents are unchanged.
        """
        import torch
        from safetensors.torch import save_file

        shard = shard or shard_name(self.next_number())
        stored = {name: tensor.to(getattr(torch, dtype)).contiguous() for name, tensor in
                  moments._asdict().items()}  # fmt: skip
        try:
            with replacing(self.path / shard) as temporary:
                save_file(stored, temporary)
                sha256 = file_sha256(temporary)
            line = json.dumps({"shard": shard, "shard_sha256": sha256, "keys": list(keys)})
            append_lines(self.path / JOURNAL, line.encode() + b"\n", sync=True)
        except Exception as error:
            msg = (
                f"latent cache shard {self.path / shard} cannot be written ({error}); free some "
                "space and give the same command again: what was finished is kept"
            )
            raise CacheError(msg) from error

    def next_number(self) -> int:
        """One more than the largest shard number."""
        names = self.index()["shard"].unique()
        return 1 + max((int(re.findall(r"\d+", name)[0]) for name in names), default=-1)

    def merge_journal(self) -> None:
        """Move the entries of the journal to the index, in the order of the shard names.

        Raises:
            CacheError: The write fails.
        """
        if not (self.path / JOURNAL).is_file():
            return
        index = self.index().drop_duplicates(["key", "shard"])
        try:
            with replacing(self.path / INDEX) as temporary:
                index.to_parquet(temporary)
            (self.path / JOURNAL).unlink()
        except OSError as error:
            msg = (
                f"latent cache index {self.path / INDEX} cannot be written ({error}); free some "
                "space and give the same command again: what was finished is kept"
            )
            raise CacheError(msg) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs from writing to the cache until the block or this process ends.

        Raises:
            CacheError: Another run is writing to the cache.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with filelock.FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=0):
                yield
        except filelock.Timeout as error:
            msg = f"another run is writing to the latent cache {self.path}; wait for it to end"
            raise CacheError(msg) from error

    def _journal(self) -> list[pd.DataFrame]:
        """A table for each line of the journal, by shard name; incomplete lines are ignored."""
        try:
            lines = (self.path / JOURNAL).read_bytes().splitlines()
        except FileNotFoundError:
            return []
        shards = []
        for line in lines:
            with suppress(ValueError):
                entry = json.loads(line)
                table = pd.DataFrame({"key": entry["keys"]}, dtype="str")
                table = table.assign(
                    shard=entry["shard"], row=range(len(table)), shard_sha256=entry["shard_sha256"]
                )
                shards.append((entry["shard"], table))
        return [table for _, table in sorted(shards, key=itemgetter(0))]

    def reader(self, keys: Sequence[str]) -> LatentReader:
        """Open latents in the order of the keys and verify the SHA-256 of their shards.

        Raises:
            CacheError: A key is not in the cache, or a shard is missing or damaged.
        """
        return LatentReader(self, keys)


class LatentReader:
    """Memory-mapped latents in a given order; see :meth:`LatentCache.reader`."""

    def __init__(self, cache: LatentCache, keys: Sequence[str]) -> None:
        index = cache.index().drop_duplicates("key", keep="last").set_index("key")
        unknown = [key for key in keys if key not in index.index]
        if unknown:
            raise CacheError(
                f"latent cache {cache.path} lacks {len(unknown)} of {len(keys)} latents; "
                f"run {kedro_run('latent_caching')}"
            )
        wanted = index.loc[list(keys)]
        self._places = list(zip(wanted["shard"], wanted["row"], strict=True))
        digests = wanted.drop_duplicates("shard")
        self._shards = {
            shard: _open_shard(cache.path / shard, sha256)
            for shard, sha256 in zip(digests["shard"], digests["shard_sha256"], strict=True)
        }

    def __len__(self) -> int:
        return len(self._places)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, h, w) of each latent."""
        channels, height, width = self.moments([0]).mean.shape[1:]
        return channels, height, width

    def moments(self, rows: Sequence[int]) -> LatentMoments:
        """Moments in float32 of the latents at some positions in the order of the keys."""
        import torch

        places = [self._places[row] for row in rows]
        mean = torch.stack([self._shards[shard]["mean"][row] for shard, row in places])
        std = torch.stack([self._shards[shard]["std"][row] for shard, row in places])
        return LatentMoments(mean.float(), std.float())


def _open_shard(path: Path, sha256: str) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    if not path.is_file() or file_sha256(path) != sha256:
        raise CacheError(
            f"latent cache shard {path} is damaged (its SHA-256 is not the recorded "
            f"{sha256[:12]}…); delete this file and run {kedro_run('latent_caching')}"
        )
    return load_file(path)
