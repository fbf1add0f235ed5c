"""Reads images and masks from untrusted files.

`read_image` returns 8-bit "L" or "RGB" with EXIF orientation applied; see
`decodiff_pipeline.deco.colour` for the conversion. Only PNG, JPEG, BMP, TIFF and WebP are read, by
content, whatever the suffix. An image above `max_pixels` is refused before it is decoded; see
`decodiff_pipeline.data.decoding` for other refused files.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from decodiff_pipeline.data.bit_depth import bits_by_path
from decodiff_pipeline.data.decoding import MAX_PIXELS, decode
from decodiff_pipeline.data.file_names import encoding_error, is_left_out, on_disk
from decodiff_pipeline.data.masks import parse_mask
from decodiff_pipeline.deco.colour import FULL_DEPTH
from decodiff_pipeline.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd
    from PIL import Image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
LINK_CURE = (
    "links are refused inside a data folder; copy what they point to, with "
    "`python -m decodiff_pipeline.data.acquire folder SOURCE NAME`, or, where DVC made them, with "
    "`dvc config cache.type copy` and `dvc checkout --relink`"
)
# Uncompressed 16-bit RGBA; a larger file cannot be an image of `max_pixels` pixels.
MAX_BYTES_PER_PIXEL = 8


class ImageFolder:
    """A folder of raw images, read one at a time.

    Args:
        path: Root of the raw images. It may be a symbolic link; paths below it may contain none.
        bits: Path → bits that a 16-bit image uses; 16 for images without an entry.
        max_pixels: Largest accepted width times height.
    """

    def __init__(
        self,
        path: Path,
        bits: Mapping[str, int] | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.path, self.bits, self.max_pixels = Path(path), dict(bits or {}), max_pixels

    def of(self, manifest: pd.DataFrame, depths: Mapping[str, int] | None = None) -> ImageFolder:
        """The same folder with the bit depths and image sizes of a validated manifest.

        Args:
            manifest: The validated manifest, or rows of it.
            depths: Category → bits that its 16-bit images use; by default, those of `manifest`.
        """
        pixels = self.max_pixels
        if len(manifest) and {"width", "height"} <= set(manifest):
            pixels = max(pixels, int((manifest["width"] * manifest["height"]).max()))
        return ImageFolder(self.path, bits_by_path(manifest, depths), pixels)

    def read(self, relative: str) -> Image.Image:
        """Read the image at a posix path relative to the root; see `read_image`."""
        return read_image(
            self.path / relative,
            root=self.path,
            max_pixels=self.max_pixels,
            bits=self.bits.get(relative, FULL_DEPTH),
        )

    def read_mask(self, relative: str) -> np.ndarray:
        """Read the mask at `relative` as bool (H, W), True on the defect; see `read_mask`."""
        return read_mask(self.path / relative, root=self.path, max_pixels=self.max_pixels).defect

    def __repr__(self) -> str:
        return f"ImageFolder({str(self.path)!r})"


def read_image(
    path: Path, *, root: Path | None = None, max_pixels: int = MAX_PIXELS, bits: int = FULL_DEPTH
) -> Image.Image:
    """Read an image as 8-bit "L" or "RGB", with EXIF orientation applied.

    Args:
        root: If given, `path` must be below it and contain no symbolic link.
        bits: Number of bits that a 16-bit image uses.

    Raises:
        ImageError: The path is outside the root, or the file is missing, empty, damaged, too
            large, animated, fully transparent, or in an unsupported format or mode.
    """
    data = read_bytes(path, root=root, max_pixels=max_pixels)
    return decode(data, path, max_pixels).eight_bit(path, bits)


@dataclass(frozen=True)
class Mask:
    """A mask, or the union of the masks in a folder."""

    defect: np.ndarray  # bool (H, W), True on the defect; see `masks.parse_mask`
    note: str  # which background is not zero; empty if none
    lossy: bool  # whether the compression changes pixels
    orientation: int  # EXIF, 1 to 8; of the first mask in a folder


def read_mask(path: Path, *, root: Path | None = None, max_pixels: int = MAX_PIXELS) -> Mask:
    """Read a mask, or the union of a folder with one mask per defect.

    Arguments and errors are those of `read_image`. The masks in a folder must have the same size.
    """
    files = [
        decode(read_bytes(one, root=root, max_pixels=max_pixels), one, max_pixels)
        for one in _mask_files(path if root is None else resolve_inside(root, path))
    ]
    parsed = [parse_mask(file.image) for file in files]
    first = parsed[0].defect.shape
    for shape in (one.defect.shape for one in parsed):
        if shape != first:
            raise ImageError(
                f"{path} holds masks of {first[1]}x{first[0]} and {shape[1]}x{shape[0]} pixels: "
                "all must have the size of their image."
            )
    return Mask(
        defect=np.logical_or.reduce([one.defect for one in parsed]),
        note=next((one.note for one in parsed if one.note), ""),
        lossy=any(file.lossy for file in files),
        orientation=files[0].orientation,
    )


def _mask_files(path: Path) -> list[Path]:
    """The image files in a folder of masks, or the file itself."""
    if not os.path.isdir(path):
        return [path]
    try:
        names = sorted(name for name in os.listdir(path) if not is_left_out(name))
    except OSError as error:
        raise ImageError(f"{path} cannot be listed: {error.strerror or error}.") from error
    files = [path / name for name in names if Path(name).suffix.lower() in SUFFIXES]
    if not files:
        raise ImageError(f"{path} holds no mask: put one there, or remove the folder.")
    return files


def resolve_inside(root: Path, path: Path) -> Path:
    """Check that `path` is below `root` and contains neither symbolic links nor "..".

    Returns:
        The path in the Unicode normal form (NFC or NFD) that it has on disk.

    Raises:
        ImageError: The path fails a check.
    """
    try:
        parts = PurePosixPath(on_disk(root, path.relative_to(root).as_posix())).parts
    except ValueError as error:
        raise ImageError(
            f"{path} lies outside the data folder {root}: "
            "use paths relative to that folder, inside it."
        ) from error
    if ".." in parts or not parts:
        raise ImageError(
            f"{path} leaves the data folder {root}: use paths relative to that folder, inside it."
        )
    step = root
    for part in parts:
        step = step / part
        if step.is_symlink():
            raise ImageError(f"{path} goes through the link {step}: {LINK_CURE}.")
    return step


def read_bytes(path: Path, *, root: Path | None = None, max_pixels: int = MAX_PIXELS) -> bytes:
    """Read a regular file of 1 to `max_pixels` · `MAX_BYTES_PER_PIXEL` bytes.

    Raises:
        ImageError: The path is outside the root, or the file is unreadable, empty or too large.
    """
    if root is not None:
        path = resolve_inside(root, path)
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{path} is not a regular file: put an image file there or remove it.")
        if status.st_size == 0:
            raise ImageError(f"{path} is empty (0 bytes): copy it again or remove it.")
        if status.st_size > max_pixels * MAX_BYTES_PER_PIXEL:
            raise ImageError(
                f"{path} has {status.st_size:,} bytes, more than an image of the {max_pixels:,} "
                "pixels of data.max_pixels can need: tile or shrink it."
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(
            f"{path} does not exist: restore it or take it out of the list."
        ) from error
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeEncodeError as error:
        raise ImageError(encoding_error(path.name, path.parent)) from error
    except ValueError as error:
        raise ImageError(f"{str(path)!r} cannot be the name of a file: {error}.") from error
