"""What the latent cache keeps, notices and survives."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from decodiff_pipeline.data import caching
from decodiff_pipeline.data.caching import (
    LatentCacheConfig,
    fill_cache,
    wanted_latents,
    wanted_synthetic,
)
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.latent_cache import LatentCache, LatentMoments, latent_key
from decodiff_pipeline.data.transforms import AugmentationConfig, augmented_square
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.geometry import squares
from decodiff_pipeline.deco.preprocess import to_square
from decodiff_pipeline.errors import CacheError

if TYPE_CHECKING:
    from decodiff_pipeline.deco.weights import AutoencoderConfig

GEOMETRY = PreprocessConfig(resize=64, image_size=64)


def photograph(name: str) -> Image.Image:
    random = np.random.default_rng(len(name) + sum(name.encode()))
    return Image.fromarray(random.integers(0, 256, (40, 40), np.uint8))


class Photographs(ImageFolder):
    """Stands in for the raw images, and remembers which were read."""

    def __init__(self) -> None:
        super().__init__(Path())
        self.seen: list[str] = []

    def read(self, name: str) -> Image.Image:
        self.seen.append(name)
        return photograph(name)


def manifest(names: list[str], split: str = "train") -> pd.DataFrame:
    return pd.DataFrame({
        "category": "a", "split": split, "label": "good", "path": names,
        "sha256": [f"hash of {name}" for name in names],
    })  # fmt: skip


@pytest.fixture
def autoencoder(tiny_autoencoder: AutoencoderConfig) -> AutoencoderConfig:
    return tiny_autoencoder


def fill(
    cache: LatentCache, rows: pd.DataFrame, autoencoder: AutoencoderConfig, **options: object
) -> SimpleNamespace:
    images = Photographs()
    config = LatentCacheConfig.model_validate({"views": 2, "shard_size": 4, **options})
    encoded = fill_cache(
        cache, manifest=rows, images=images, geometry=GEOMETRY, autoencoder=autoencoder,
        config=config,
    )  # fmt: skip
    keys = [latent.key for latent in wanted_latents(rows, "train", GEOMETRY, autoencoder, config)]
    return SimpleNamespace(encoded=encoded, read=images.seen, keys=keys)


def test_a_second_run_encodes_nothing(tmp_path: Path, autoencoder: AutoencoderConfig) -> None:
    cache, rows = LatentCache(tmp_path / "cache"), manifest(["x", "y", "z"])
    assert fill(cache, rows, autoencoder).encoded == 6
    again = fill(cache, rows, autoencoder)
    assert (again.encoded, again.read) == (0, [])


def test_a_changed_image_is_the_only_one_encoded_again(
    tmp_path: Path, autoencoder: AutoencoderConfig
) -> None:
    cache, rows = LatentCache(tmp_path / "cache"), manifest(["x", "y", "z"])
    fill(cache, rows, autoencoder)
    rows.loc[1, "sha256"] = "another hash"
    again = fill(cache, rows, autoencoder)
    assert again.read == ["y", "y"]


def test_other_weights_or_sizes_are_other_latents(autoencoder: AutoencoderConfig) -> None:
    common = {"geometry": GEOMETRY, "augmentation": AugmentationConfig(), "dtype": "float16"}
    base = latent_key("a", 1, autoencoder_digest="1", **common)
    others = [
        latent_key("b", 1, autoencoder_digest="1", **common),
        latent_key("a", 2, autoencoder_digest="1", **common),
        latent_key("a", 1, autoencoder_digest="2", **common),
        latent_key("a", 1, autoencoder_digest="1", **common | {"dtype": "float32"}),
        latent_key("a", 1, autoencoder_digest="1", **common
                   | {"augmentation": AugmentationConfig(seed=1)}),
        latent_key("a", 1, autoencoder_digest="1", **common
                   | {"geometry": PreprocessConfig(resize=96, image_size=64)}),
        latent_key("a", 1, autoencoder_digest="1", **common
                   | {"geometry": PreprocessConfig(resize=64, image_size=64, fit="crop")}),
    ]  # fmt: skip
    assert len({base, *others}) == 8


def test_latents_are_those_of_the_images(tmp_path: Path, autoencoder: AutoencoderConfig) -> None:
    from decodiff_pipeline.deco.autoencoder import encode, load_autoencoder
    from decodiff_pipeline.deco.preprocess import to_tensor

    cache = LatentCache(tmp_path / "cache")
    filled = fill(cache, manifest(["x", "y"]), autoencoder, dtype="float32")
    tensor = to_tensor([to_square(photograph(name), GEOMETRY) for name in ("x", "y")])
    expected, _ = encode(load_autoencoder(autoencoder), tensor)
    reader = cache.reader(filled.keys)
    found = reader.moments([0, 2])  # the unaugmented view of each image
    assert reader.shape == (4, 8, 8)
    assert found.std.shape == (2, 0, 8, 8)
    torch.testing.assert_close(found.mean, expected, atol=1e-5, rtol=0)


def test_a_flipped_byte_is_noticed_and_only_its_shard_is_made_again(
    tmp_path: Path, autoencoder: AutoencoderConfig
) -> None:
    cache, rows = LatentCache(tmp_path / "cache"), manifest(["x", "y", "z", "w"])
    filled = fill(cache, rows, autoencoder)
    shard = sorted(cache.path.glob("*.safetensors"))[1]
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(content)
    with pytest.raises(CacheError, match=rf"{shard.name} is damaged .*delete this file"):
        cache.reader(filled.keys)
    shard.unlink()
    again = fill(cache, rows, autoencoder)
    assert sorted(set(again.read)) == ["w", "z"]
    assert len(cache.reader(filled.keys)) == 8


def test_a_killed_run_keeps_its_finished_shards(
    tmp_path: Path, autoencoder: AutoencoderConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, rows = LatentCache(tmp_path / "cache"), manifest(["x", "y", "z", "w"])

    class Killed(BaseException):
        pass

    def killing_append(self: LatentCache, *args: object) -> None:
        if self.index().empty:
            original(self, *args)
        else:
            raise Killed

    original = LatentCache.append
    monkeypatch.setattr(caching.LatentCache, "append", killing_append)
    with pytest.raises(Killed):
        fill(cache, rows, autoencoder)
    monkeypatch.undo()
    assert sorted(set(fill(cache, rows, autoencoder).read)) == ["w", "z"]


def test_a_missing_latent_is_explained(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"lacks 1 of 1 latents; run kedro run --pipelines latent"):
        LatentCache(tmp_path).reader(["unknown"])


def test_too_little_room_is_noticed_before_any_work(
    tmp_path: Path, autoencoder: AutoencoderConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        caching.shutil, "disk_usage", lambda _: SimpleNamespace(total=0, used=0, free=1000)
    )
    images = Photographs()
    with pytest.raises(CacheError, match=r"needs \d+ MiB but the disk has 0 MiB left"):
        fill_cache(
            LatentCache(tmp_path / "cache"), manifest=manifest(["x"]), images=images,
            geometry=GEOMETRY, autoencoder=autoencoder, config=LatentCacheConfig(),
        )  # fmt: skip
    assert images.seen == []


def test_nothing_to_do_needs_no_torch(tmp_path: Path, autoencoder: AutoencoderConfig) -> None:
    cache, rows = LatentCache(tmp_path / "cache"), manifest(["x"])
    fill(cache, rows, autoencoder)
    rows.to_parquet(tmp_path / "manifest.parquet")
    program = (
        "import sys, pathlib, pandas as pd\n"
        "from decodiff_pipeline.data.caching import *\n"
        "from decodiff_pipeline.data.latent_cache import LatentCache\n"
        "from decodiff_pipeline.deco.config import PreprocessConfig\n"
        "from decodiff_pipeline.deco.weights import AutoencoderConfig\n"
        "n = fill_cache(LatentCache(pathlib.Path(sys.argv[1])),\n"
        "    manifest=pd.read_parquet(sys.argv[2]), images=None,\n"
        "    geometry=PreprocessConfig(resize=64, image_size=64),\n"
        "    autoencoder=AutoencoderConfig(sys.argv[3]), config=LatentCacheConfig(views=2))\n"
        "assert n == 0\n"
        "assert 'torch' not in sys.modules and 'diffusers' not in sys.modules\n"
    )
    command = [sys.executable, "-c", program, cache.path, tmp_path / "manifest.parquet",
               autoencoder.source]  # fmt: skip
    subprocess.run([str(part) for part in command], check=True, timeout=120)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_leaves_the_cache_as_it_was(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(small)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not allow mounting a tmpfs")
    try:
        cache = LatentCache(small / "cache")
        room = torch.zeros(4, 4, 8, 8)
        cache.append(["a", "b", "c", "d"], LatentMoments(room, room[:, :0]), "float32")
        huge = torch.zeros(1, 4, 256, 256)
        with pytest.raises(CacheError, match=r"latents-00001\.safetensors cannot be written"):
            cache.append(["e"], LatentMoments(huge, huge[:, :0]), "float32")
        assert len(cache.reader(["a", "b", "c", "d"])) == 4
        assert sorted(file.name for file in cache.path.iterdir()) == [
            "latents-00000.safetensors", "shards.jsonl",
        ]  # fmt: skip
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_views_are_repeatable_small_shifts() -> None:
    image, shifting = photograph("x"), AugmentationConfig(translation_probability=1.0)
    views = [augmented_square(image, GEOMETRY, shifting, "x", view) for view in range(6)]
    assert np.array_equal(views[0], to_square(image, GEOMETRY))
    assert np.array_equal(views[3], augmented_square(image, GEOMETRY, shifting, "x", 3))
    assert len({view.tobytes() for view in views}) > 3
    inner = views[0][8:-8, 8:-8]
    for view in views[1:]:
        shifts = [view[8 + y : 56 + y, 8 + x : 56 + x] for y in range(-4, 5) for x in range(-4, 5)]
        assert any(np.array_equal(inner, shifted) for shifted in shifts)


def test_a_half_turn_is_drawn_for_half_of_the_views() -> None:
    image = photograph("x")
    turning = AugmentationConfig(translation_probability=0.0, rotate_180=True)
    whole = to_square(image, GEOMETRY)
    views = [augmented_square(image, GEOMETRY, turning, "x", view) for view in range(1, 201)]
    turned = [np.array_equal(view, whole[::-1, ::-1]) for view in views]
    assert all(t or np.array_equal(view, whole) for t, view in zip(turned, views, strict=True))
    assert 0.35 < np.mean(turned) < 0.65


def test_val_images_get_synthetic_defects_with_masks(
    tmp_path: Path, autoencoder: AutoencoderConfig
) -> None:
    cache, rows = LatentCache(tmp_path / "cache"), manifest(["x", "y", "z"], "val")
    config = LatentCacheConfig(synthetic_defects=2)
    assert fill(cache, rows, autoencoder, synthetic_defects=2).encoded == 3 + 6
    items = wanted_synthetic(rows, GEOMETRY, autoencoder, config)
    good = cache.reader([
        latent.key for latent in wanted_latents(rows, "val", GEOMETRY, autoencoder, config)
    ]).moments([0, 0, 1, 1, 2, 2]).mean  # fmt: skip
    spoilt = cache.reader([item.key for item in items]).moments(range(6)).mean
    masks = cache.reader([item.mask_key for item in items]).moments(range(6)).mean
    assert masks.shape == (6, 1, 8, 8)
    _, mask = items[3].image.draw(Photographs(), GEOMETRY)
    assert masks[3].mean().item() == pytest.approx(mask.mean(), abs=1e-3)
    change = (spoilt - good).abs().mean(1, keepdim=True)
    assert (change * masks).sum() / masks.sum() > 3 * change[masks == 0].mean()


def test_synthetic_defects_are_drawn_once(tmp_path: Path, autoencoder: AutoencoderConfig) -> None:
    cache, rows = LatentCache(tmp_path / "cache"), manifest(list("stuvwxyz"), "val")
    rows["sha256"] = [hashlib.sha256(name.encode()).hexdigest() for name in rows["path"]]
    fill(cache, rows, autoencoder)
    again = fill(cache, rows, autoencoder)
    assert (again.encoded, again.read) == (0, [])
    more = fill(cache, rows, autoencoder, synthetic_defects=2)
    assert more.encoded == 8
    rows.loc[0, "sha256"] = hashlib.sha256(b"another image").hexdigest()
    changed = fill(cache, rows, autoencoder)
    # the image, its own defect, and those that took their texture from it or do so now
    assert 2 <= changed.encoded < 8


def test_a_defect_without_its_mask_is_made_again(
    tmp_path: Path, autoencoder: AutoencoderConfig
) -> None:
    cache, rows = LatentCache(tmp_path / "cache"), manifest(["x", "y"], "val")
    fill(cache, rows, autoencoder)
    items = wanted_synthetic(rows, GEOMETRY, autoencoder, LatentCacheConfig())
    index = cache.index().set_index("key")
    (cache.path / index.loc[items[0].mask_key, "shard"]).unlink()
    assert fill(cache, rows, autoencoder).encoded == 2
    assert not cache.missing([key for item in items for key in item[:2]])


TILED = PreprocessConfig(resize=64, image_size=64, fit="tile")
WIDE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 200, 3), np.uint8))


def test_views_of_a_tiled_image_go_through_its_tiles() -> None:
    still = AugmentationConfig(max_translation=0)
    tiles = {tile.tobytes() for tile in squares(WIDE, TILED)}
    assert len(tiles) == 4
    views = [augmented_square(WIDE, TILED, still, "x", view).tobytes() for view in range(6)]
    assert set(views[:4]) == tiles
    assert views[4:] == views[:2]
    first = {augmented_square(WIDE, TILED, still, str(name), 0).tobytes() for name in range(40)}
    assert first == tiles


def test_a_shifted_tile_shows_what_lies_beside_it() -> None:
    shifting = AugmentationConfig(translation_probability=1.0)
    whole = np.asarray(WIDE)
    for view in range(1, 9):
        tile = augmented_square(WIDE, TILED, shifting, "x", view)[8:-8, 8:-8]
        found = [
            np.array_equal(tile, whole[y : y + 48, x : x + 48])
            for y in range(4, 13) for x in range(200 - 48)
        ]  # fmt: skip
        assert sum(found) == 1


def test_a_synthetic_defect_is_put_into_the_tile_that_is_compared_with(
    tmp_path: Path, autoencoder: AutoencoderConfig
) -> None:
    rows = manifest(["x", "y"], "val")
    images = ImageFolder(tmp_path)
    images.read = lambda _: WIDE  # type: ignore[method-assign]
    (item, _) = wanted_synthetic(rows, TILED, autoencoder, LatentCacheConfig())
    spoilt, mask = item.image.draw(images, TILED)
    good = augmented_square(WIDE, TILED, AugmentationConfig(), item.image.sha256, 0)
    assert 0 < (spoilt != good).any(-1).mean() < 0.5
    assert mask[(np.abs(spoilt.astype(int) - good) >= 12).any(-1)].all()
    cache = LatentCache(tmp_path / "cache")
    fill_cache(cache, manifest=rows, images=images, geometry=TILED, autoencoder=autoencoder,
               config=LatentCacheConfig())  # fmt: skip
    assert cache.reader([item.key]).shape == (4, 8, 8)


def test_latents_of_the_time_of_one_fit_are_found_again() -> None:
    geometry = PreprocessConfig(288, 256)
    key = latent_key("ab" * 32, 1, autoencoder_digest="cd" * 32, geometry=geometry,
                     augmentation=AugmentationConfig(), dtype="float16")  # fmt: skip
    assert key == "e7e2a1a920b8f19017e3a4e6844d9466a8d96104901792d75626f0d82ea2f4e4"
