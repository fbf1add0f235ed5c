from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from tests.data.files import png

from decodiff_pipeline.data.images import ImageFolder, read_image, read_mask
from decodiff_pipeline.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOISE = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def as_file(path: Path, **options: object) -> bytes:
    Image.fromarray(NOISE).save(path, **options)
    return path.read_bytes()


def animated(path: Path) -> bytes:
    frames = [Image.fromarray(NOISE), Image.fromarray(255 - NOISE)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path.read_bytes()


BROKEN: dict[str, tuple[str, Callable[[Path], bytes], str]] = {
    "zero bytes": ("a.png", lambda _: b"", "is empty"),
    "text": ("a.png", lambda _: b"not an image at all", "no readable PNG"),
    "html": ("a.jpg", lambda _: b"<html>404</html>", "no readable PNG"),
    "truncated png": ("a.png", lambda p: as_file(p)[:-600], "is damaged"),
    "png without its end": ("a.png", lambda p: as_file(p)[:-12], "is damaged"),
    "truncated jpeg": ("a.jpg", lambda p: as_file(p)[:-600], "is damaged"),
    "flipped byte": ("a.png", lambda p: flipped(as_file(p)), "is damaged"),
    "huge": ("a.png", lambda _: png(50_000, 50_000), "pixels"),
    "large": ("a.png", lambda _: png(8_000, 8_000), "8000x8000 pixels"),
    "bomb warning": ("a.png", lambda _: png(10_000, 10_000), "pixels"),
    "animated png": ("a.png", animated, "2 frames"),
    "animated webp": ("a.webp", animated, "2 frames"),
    "multi-page tiff": ("a.tif", animated, "2 frames"),
    "gif": ("a.gif", as_file, "no readable PNG"),
}


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_refused_in_one_sentence_that_names_it(tmp_path: Path, case: str) -> None:
    name, make, message = BROKEN[case]
    path = tmp_path / name
    path.write_bytes(make(path))
    for read in (read_image, read_mask):
        with pytest.raises(ImageError, match=message) as caught:
            read(path, root=tmp_path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "a.png")
    (tmp_path / "b.png").mkdir()
    with pytest.raises(ImageError, match="not a regular file"):
        read_image(tmp_path / "b.png")


def test_a_path_must_stay_inside_its_root_and_off_links(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    (root / "sub").mkdir(parents=True)
    outside = tmp_path / "secret.png"
    as_file(outside)
    as_file(root / "sub" / "a.png")
    (root / "link.png").symlink_to(outside)
    (root / "folder").symlink_to(root / "sub", target_is_directory=True)
    images = ImageFolder(root)
    for path, message in {
        "../secret.png": "leaves the data folder",
        "sub/../sub/a.png": "leaves the data folder",
        str(outside): "outside the data folder",
        "link.png": "goes through the link",
        "folder/a.png": "goes through the link",
    }.items():
        for read in (images.read, images.read_mask):
            with pytest.raises(ImageError, match=message):
                read(path)
    assert images.read("sub/a.png").size == (48, 40)


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    as_file(tmp_path / "disk" / "a.png")
    (tmp_path / "raw").symlink_to(tmp_path / "disk", target_is_directory=True)
    assert ImageFolder(tmp_path / "raw").read("a.png").size == (48, 40)


def test_sixteen_bit_grey_is_scaled_by_its_full_range(tmp_path: Path) -> None:
    values = np.array([[0, 257, 128 * 257, 65535, 128, 129]], dtype=np.uint16)
    for name in ("a.png", "a.tif"):
        Image.fromarray(values).save(tmp_path / name)
        image = read_image(tmp_path / name)
        assert image.mode == "L"
        assert np.asarray(image).tolist() == [[0, 1, 128, 255, 0, 1]]


@pytest.mark.parametrize(
    ("mode", "name", "expected"),
    [
        ("L", "a.png", "L"),
        ("1", "a.png", "L"),
        ("RGB", "a.jpg", "RGB"),
        ("P", "a.png", "RGB"),
        ("CMYK", "a.jpg", "RGB"),
        ("CMYK", "a.tif", "RGB"),
        ("RGBA", "a.png", "RGB"),
        ("LA", "a.png", "L"),
        ("RGB", "a.webp", "RGB"),
        ("L", "a.bmp", "L"),
    ],
)
def test_every_mode_becomes_grey_or_rgb_and_keeps_its_looks(
    tmp_path: Path, mode: str, name: str, expected: str
) -> None:
    smooth = Image.fromarray(NOISE[:4, :4]).resize((48, 40), Image.Resampling.BICUBIC)
    made = smooth.convert(mode)
    made.save(tmp_path / name)
    image = read_image(tmp_path / name)
    assert image.mode == expected
    apart = np.asarray(image, float) - np.asarray(made.convert(expected), float)
    assert np.abs(apart).mean() < 6  # JPEG and WebP lose a little


def test_transparency_is_composited_on_black(tmp_path: Path) -> None:
    values = np.full((1, 3, 4), 200, np.uint8)
    values[0, :, 3] = (0, 128, 255)
    Image.fromarray(values).save(tmp_path / "rgba.png")
    Image.fromarray(values[:, :, 2:]).save(tmp_path / "la.png")
    assert np.asarray(read_image(tmp_path / "rgba.png"))[0, :, 0].tolist() == [0, 100, 200]
    assert np.asarray(read_image(tmp_path / "la.png"))[0].tolist() == [0, 100, 200]


def test_float_images_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=r"a\.tif has mode F"):
        read_image(tmp_path / "a.tif")


def test_the_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    half = np.zeros((40, 48), np.uint8)
    half[:, :24] = 255  # bright on the left, on top once turned
    Image.fromarray(half).save(tmp_path / "a.jpg", exif=exif)
    image = read_image(tmp_path / "a.jpg")
    assert image.size == (40, 48)
    assert np.asarray(image)[:20].mean() > 250
    assert np.asarray(image)[28:].mean() < 5
