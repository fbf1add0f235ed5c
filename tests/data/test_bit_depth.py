from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from tests.data.files import encoded, png

from decodiff_pipeline.data.bit_depth import depth_of_categories, pixel_identities
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.manifest import DataConfig, build_manifest
from decodiff_pipeline.data.measuring import pixels_sha256
from decodiff_pipeline.deco.colour import scaled_to_eight_bit
from decodiff_pipeline.errors import ImageError

if TYPE_CHECKING:
    from pathlib import Path


def smooth(seed: int, largest: int, channels: int = 1) -> np.ndarray:
    """16-bit values of a soft texture that reach exactly from 0 to ``largest``."""
    coarse = np.random.default_rng(seed).random((6, 6, channels))
    planes = [
        np.asarray(Image.fromarray(coarse[:, :, c]).resize((48, 40), Image.Resampling.BICUBIC))
        for c in range(channels)
    ]
    values = np.dstack(planes)
    values = (values - values.min()) / np.ptp(values) * largest
    return values.round().astype(np.uint16).squeeze()


def colour_png(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow does not write."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(*values.shape[1::-1], depth=16, colour=2, pixels=rows)


@pytest.fixture
def cameras(tmp_path: Path) -> ImageFolder:
    """Categories whose 16-bit files hold 10 and 12 bits, 12 bits in colour, 16 bits, and 8."""
    for seed in range(3):
        for name, largest in {"ten": 1000, "twelve": 4095 - seed, "full": 65535}.items():
            (tmp_path / name / "good").mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(smooth(seed, largest))
            image.save(tmp_path / name / "good" / f"{seed}.{'png' if seed else 'tif'}")
        for name in ("colour", "eight"):
            (tmp_path / name / "good").mkdir(parents=True, exist_ok=True)
        (tmp_path / "colour/good" / f"{seed}.png").write_bytes(colour_png(smooth(seed, 3000, 3)))
        Image.fromarray((smooth(seed, 255)).astype(np.uint8)).save(
            tmp_path / "eight/good" / f"{seed}.png"
        )
    return ImageFolder(tmp_path)


def test_the_depth_is_taken_from_the_values_and_reaches_every_reader(
    cameras: ImageFolder, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        manifest = build_manifest(cameras, DataConfig(layout="folder"))
    assert "twelve: the largest value of its 16-bit images is 4095" in caplog.text
    depths = manifest.groupby("category")["bit_depth"].unique().map(list).to_dict()
    assert depths == {"ten": [10], "twelve": [12], "full": [16], "colour": [12], "eight": [0]}
    assert depth_of_categories(manifest) == {"ten": 10, "twelve": 12, "colour": 12}
    assert manifest["contrast"].min() > 100  # 11 grey levels of 256 would be 10
    seen = cameras.of(manifest)
    assert np.asarray(seen.read("twelve/good/0.tif")).max() == 255
    colour = np.asarray(seen.read("colour/good/1.png"))
    assert np.array_equal(colour, scaled_to_eight_bit(smooth(1, 3000, 3), bits=12))
    assert np.asarray(seen.read("eight/good/0.png")).max() == 255
    trained_before = cameras.of(manifest, {})  # a model without depths reads all 16 bits
    assert np.asarray(trained_before.read("twelve/good/0.tif")).max() == 16


def test_the_full_range_is_read_as_it_always_was(cameras: ImageFolder) -> None:
    manifest = build_manifest(cameras, DataConfig(layout="folder"))
    values = smooth(1, 65535).astype(np.uint32)
    found = np.asarray(cameras.of(manifest).read("full/good/1.png"))
    assert np.array_equal(found, (values + 128) // 257)
    full = manifest[manifest["category"] == "full"]
    assert list(pixel_identities(full)) == list(full["sha256"])
    other = manifest[manifest["category"] == "ten"]
    assert all(text.endswith(" 10 bits") for text in pixel_identities(other))


def test_a_depth_that_is_set_holds_and_a_value_above_it_is_refused(cameras: ImageFolder) -> None:
    manifest = build_manifest(
        cameras, DataConfig(layout="folder", categories=("ten", "twelve"), bit_depth=10)
    )
    errors = manifest.groupby("category")["error"].agg(lambda told: (told != "").sum())
    assert errors.to_dict() == {"ten": 0, "twelve": 3}
    assert manifest["error"].str.contains(r"up to 4095, above 1023.*data\.bit_depth").any()
    with pytest.raises(ImageError, match=r"above 1023"):
        ImageFolder(cameras.path, {"twelve/good/0.tif": 10}).read("twelve/good/0.tif")


def test_an_excluded_image_does_not_decide_on_the_depth(cameras: ImageFolder) -> None:
    Image.fromarray(smooth(9, 60000)).save(cameras.path / "ten/good/burnt.png")
    config = DataConfig(layout="folder", exclude=("ten/good/burnt.png",))  # type: ignore[arg-type]
    assert depth_of_categories(build_manifest(cameras, config))["ten"] == 10


def test_pictures_are_equal_whatever_the_file_is() -> None:
    picture = Image.fromarray(smooth(2, 255, 3).astype(np.uint8))
    grey = picture.convert("L")
    assert pixels_sha256(grey) == pixels_sha256(grey.convert("RGB"))
    deep = np.asarray(grey).astype(np.uint16) * 257
    assert pixels_sha256(grey, deep) == pixels_sha256(grey)
    assert pixels_sha256(grey, deep + 1) != pixels_sha256(grey)
    assert pixels_sha256(grey.crop((0, 0, 48, 20))) != pixels_sha256(grey)
    again = Image.open(io.BytesIO(encoded(picture, "WEBP", lossless=True))).convert("RGB")
    assert pixels_sha256(again) == pixels_sha256(picture)
