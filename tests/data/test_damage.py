from __future__ import annotations

import io
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from benchmarks.fuzz_images import fuzz
from PIL import Image
from tests.data.files import encoded, png_chunk

from decodiff_pipeline.data.decoding import FORMATS, decode, jpeg_damage
from decodiff_pipeline.data.images import read_image
from decodiff_pipeline.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RNG = np.random.default_rng(4)
END = b"\xff\xd9"
BASELINE: list[dict[str, Any]] = [{"quality": 90}, {"quality": 60, "optimize": True}]
RESTARTING: list[dict[str, Any]] = [{"restart_marker_blocks": 4}]
PROGRESSIVE: list[dict[str, Any]] = [{"progressive": True}, {"progressive": True, "quality": 95}]


def noisy(width: int = 160, height: int = 160) -> Image.Image:
    coarse = RNG.integers(60, 200, (4, 4, 3)).astype(np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = RNG.normal(0, 8, (height, width, 1))
    return Image.fromarray(np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8))


def half_and_end(data: bytes) -> bytes:
    return data[: len(data) * 2 // 3] + END


def zeroed(data: bytes) -> bytes:
    half = len(data) * 2 // 3
    return data[:half] + bytes(len(data) - half - 2) + END


def without_a_piece(data: bytes) -> bytes:
    half = len(data) * 2 // 3
    return data[:half] + data[half + len(data) // 8 :]


@pytest.mark.parametrize("options", [*BASELINE, *RESTARTING, *PROGRESSIVE], ids=str)
@pytest.mark.parametrize("damage", [half_and_end, zeroed, without_a_piece])
def test_a_jpeg_that_lost_pixels_is_refused_though_it_has_an_end(
    tmp_path: Path, options: dict[str, Any], damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(noisy(), "JPEG", **options))
    assert read_image(path).size == (160, 160)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ImageError, match=r"a\.jpg is damaged .*: copy it again"):
        read_image(path)


@pytest.mark.parametrize("size", [(160, 96), (17, 33), (1, 1)], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("plain", [False, True])
def test_no_sound_jpeg_is_refused(size: tuple[int, int], mode: str, plain: bool) -> None:
    picture = (Image.new("RGB", size, (250, 250, 250)) if plain else noisy(*size)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 3
    for options in (*BASELINE, *RESTARTING, *PROGRESSIVE, {"subsampling": 2, "quality": 1}):
        data = encoded(picture, "JPEG", exif=exif, **options)
        for whole in (
            data,
            data + bytes(100),
            data + b"some camera's notes",
            data[:-2] + b"\xff" + END,
        ):
            assert jpeg_damage(whole) == "", (options, len(whole) - len(data))
        padded = data[:-2] + bytes(40) + END  # as some cameras write
        assert plain or jpeg_damage(padded) == "", options  # zeros code a plain picture


def test_of_a_jpeg_with_several_pictures_the_first_is_read() -> None:
    buffer = io.BytesIO()
    first, second = noisy(), noisy(80, 80)
    first.save(buffer, "MPO", save_all=True, append_images=[second])
    assert decode(buffer.getvalue(), "a.jpg").image.size == (160, 160)  # type: ignore[arg-type]


def test_real_jpegs_are_sound(real_data: Callable[[str], Path]) -> None:
    paths = sorted(real_data("magnetic_tile").rglob("*.jpg"))[::40]
    assert paths
    assert [path for path in paths if jpeg_damage(path.read_bytes())] == []


BOMB = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**26)))
METADATA = {
    "text with a wrong checksum": png_chunk(b"tEXt", b"Comment\0hello", sound=False),
    "text that is gigabytes": BOMB,
    "many such": BOMB * 80,
    "a text that is none": png_chunk(b"iTXt", b"\xff" * 40),
    "a broken profile": png_chunk(b"iCCP", b"icc\0\0" + b"no zlib"),
    "EXIF that is no TIFF": png_chunk(b"eXIf", b"http://n/made/up/"),
    "a broken XMP": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta \xff"),
    "a broken raw profile": png_chunk(b"zTXt", b"Raw profile type exif\0\0no zlib"),
    "time of a wrong length": png_chunk(b"tIME", b"\1"),
    "a wrong resolution": png_chunk(b"pHYs", b"\1\2"),
}


@pytest.mark.parametrize("name", METADATA)
def test_the_metadata_of_a_png_cannot_spoil_its_pixels(tmp_path: Path, name: str) -> None:
    picture = noisy(40, 48)
    whole = encoded(picture, "PNG")
    (tmp_path / "a.png").write_bytes(whole[:33] + METADATA[name] + whole[33:])
    image = read_image(tmp_path / "a.png")
    assert np.array_equal(np.asarray(image), np.asarray(picture))
    assert image.getexif() == {}  # what a later reader would stumble over is gone


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_exif_that_cannot_be_read_turns_nothing_and_is_noted(kind: str) -> None:
    block = b"http://n/made/up/"
    data = encoded(noisy(40, 48), kind, exif=b"Exif\0\0" + block if kind != "PNG" else block)
    found = decode(data, "a")  # type: ignore[arg-type]
    assert found.image.size == (40, 48)
    assert "EXIF" in found.note
    assert found.eight_bit().getexif() == {}


@pytest.mark.parametrize("kind", FORMATS)
def test_no_damaged_file_crashes_hangs_or_gives_pixels_of_its_own(kind: str) -> None:
    faults: list[str] = []
    verdicts = fuzz(kind, 60, 1, lambda verdict, _: faults.append(verdict))
    assert faults == []
    assert verdicts["refused"] > 20
