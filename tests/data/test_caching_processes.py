"""Several processes fill the latent cache as one does."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from decodiff_pipeline.compute.config import IMAGES_PER_PROCESS, ComputeConfig, plan_images
from decodiff_pipeline.compute.group import Group
from decodiff_pipeline.data import caching
from decodiff_pipeline.data.caching import LatentCacheConfig, fill_cache
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.latent_cache import LatentCache
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.errors import CacheError, ComputeError, ImageError

if TYPE_CHECKING:
    from decodiff_pipeline.deco.weights import AutoencoderConfig

GEOMETRY = PreprocessConfig(resize=64, image_size=64)
CONFIG = LatentCacheConfig(views=3, batch_size=4, shard_size=8)
KILLED_AT = "DECODIFF_TEST_KILLED_AT"


def encode_rank(content: str, group: Group) -> None:
    """What the processes of the killed run do: one of them dies before its second shard."""
    append = LatentCache.append

    def killing(self: LatentCache, *args: object) -> None:
        if group.rank == 1 and args[3] >= os.environ[KILLED_AT]:
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, *args)

    LatentCache.append = killing  # type: ignore[method-assign, assignment]
    caching.encode_rank(content, group)


@pytest.fixture
def raw(tmp_path: Path) -> ImageFolder:
    random = np.random.default_rng(0)
    for number in range(11):
        picture = Image.fromarray(random.integers(0, 256, (70, 60, 3), np.uint8))
        picture.save(tmp_path / f"{number}.png")
    return ImageFolder(tmp_path)


def rows() -> pd.DataFrame:
    """Nine images to train on and two to validate by: 27 latents, and 4 with 2 masks."""
    paths = [f"{number}.png" for number in range(11)]
    return pd.DataFrame(
        {"category": "a", "split": ["train"] * 9 + ["val"] * 2, "label": "good", "path": paths,
         "sha256": [f"hash of {path}" for path in paths]}
    )  # fmt: skip


def fill(folder: Path, raw: ImageFolder, autoencoder: AutoencoderConfig, processes: int) -> int:
    return fill_cache(
        LatentCache(folder), manifest=rows(), images=raw, geometry=GEOMETRY,
        autoencoder=autoencoder, config=CONFIG,
        compute=ComputeConfig(processes=processes, threads=1),
    )  # fmt: skip


def assert_the_same(one: LatentCache, other: LatentCache) -> None:
    def keys(cache: LatentCache, kind: str) -> list[str]:
        index = cache.index()
        return index["key"][index["shard"].str.startswith(kind)].tolist()

    for kind, count in (("latents", 31), ("masks", 2)):
        wanted = keys(one, kind)
        assert len(wanted) == count
        assert keys(other, kind) == wanted
        found = [cache.reader(wanted).moments(range(count)) for cache in (one, other)]
        assert torch.equal(found[0].mean, found[1].mean)
        assert torch.equal(found[0].std, found[1].std)


def test_two_processes_write_the_bytes_of_one_and_go_on_after_a_kill(
    tmp_path: Path,
    raw: ImageFolder,
    tiny_autoencoder: AutoencoderConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert fill(one, raw, tiny_autoencoder, 1) == 31
    # The first process has 4 of 8 batches in 2 shards, the second 3 to 5.
    paths = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv(KILLED_AT, "latents-00003")
    monkeypatch.setattr(caching, "__name__", __name__)
    with pytest.raises(ComputeError, match="rank 1 of 2 processes was ended by SIGKILL"):
        fill(two, raw, tiny_autoencoder, 2)
    monkeypatch.undo()
    kept = len(LatentCache(two).index())
    assert 8 <= kept < 31
    assert fill(two, raw, tiny_autoencoder, 2) == 31 - kept
    assert_the_same_latents(LatentCache(one), LatentCache(two))
    three = tmp_path / "three"
    assert fill(three, raw, tiny_autoencoder, 2) == 31
    assert_the_same(LatentCache(one), LatentCache(three))
    assert not (three / "shards.jsonl").exists()
    assert fill(three, raw, tiny_autoencoder, 2) == 0


def assert_the_same_latents(one: LatentCache, other: LatentCache) -> None:
    index = one.index()
    for kind in ("latents", "masks"):
        keys = index["key"][index["shard"].str.startswith(kind)].tolist()
        found = [cache.reader(keys).moments(range(len(keys))).mean for cache in (one, other)]
        torch.testing.assert_close(found[0], found[1], atol=1e-3, rtol=0)


def test_every_shard_is_written_by_one_process_for_any_number() -> None:
    """More processes than batches, too."""
    for count in (1, 4, 5, 31, 64):
        for size in (1, 2, 3, 40):
            ranks = [Group(rank, size).shards(count, 4, 8) for rank in range(size)]
            shards = [shard for rank in ranks for shard in rank]
            assert [number for number, _ in shards] == list(range(len(shards)))
            assert [i for _, rows in shards for i in range(rows.start, rows.stop)] == list(
                range(count)
            )
            assert all(rows.start % 4 == 0 for _, rows in shards)


def test_an_image_that_cannot_be_read_names_file_and_rank(
    tmp_path: Path, raw: ImageFolder, tiny_autoencoder: AutoencoderConfig
) -> None:
    (raw.path / "10.png").write_bytes(b"")
    with pytest.raises(ImageError, match=r"10\.png is empty .*\(rank 1 of 2 processes\)"):
        fill(tmp_path / "cache", raw, tiny_autoencoder, 2)


def test_a_second_run_is_refused(
    tmp_path: Path, raw: ImageFolder, tiny_autoencoder: AutoencoderConfig
) -> None:
    cache = LatentCache(tmp_path / "cache")
    with cache.locked(), pytest.raises(CacheError, match="another run is writing to the latent"):
        fill(cache.path, raw, tiny_autoencoder, 1)


@pytest.mark.parametrize(("images", "processes"), [(0, 1), (3, 1), (2 * IMAGES_PER_PROCESS, 2)])
def test_a_few_images_stay_in_one_process(
    images: int, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("decodiff_pipeline.compute.config.available_cores", lambda: 2)
    assert plan_images(ComputeConfig(device="cpu"), images).processes == processes


def test_more_processes_than_images_are_as_many_as_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decodiff_pipeline.compute.config.available_cores", lambda: 8)
    assert plan_images(ComputeConfig(device="cpu", processes=8), 3).processes == 3
