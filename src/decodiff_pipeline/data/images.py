"""Safe reading of images and masks that somebody else made.

`read_image` returns "L" or "RGB" only, 8 bits a channel: see `decodiff_pipeline.deco.colour` for
the rules. Of several frames (animated PNG or WebP, multi-page TIFF) none is read; of a phone's MPO
the first is.

The EXIF orientation is applied. Anything but PNG, JPEG, BMP, TIFF and WebP is refused, by content,
whatever the suffix says; so is anything above `MAX_PIXELS`, before a pixel is decoded.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from decodiff_pipeline.data.file_names import encoding_complaint, is_left_out, on_disk
from decodiff_pipeline.deco.colour import to_eight_bit
from decodiff_pipeline.errors import ImageError

# Pillow warns from 89 million pixels on, and only warns: a warning of this kind is an error here.
warnings.simplefilter("error", Image.DecompressionBombWarning)

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
SUFFIX_OF = {"PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "BMP": ".bmp", "TIFF": ".tif"}
LINK_CURE = (
    "links are refused inside a data folder; copy what they point to, with "
    "`python -m decodiff_pipeline.data.acquire folder SOURCE NAME`, or, where DVC made them, with "
    "`dvc config cache.type copy` and `dvc checkout --relink`"
)
MAX_PIXELS = 50_000_000
# Uncompressed 16-bit RGBA is 8 bytes a pixel: a larger file is no image of MAX_PIXELS.
MAX_BYTES_PER_PIXEL = 8


class ImageFolder:
    """A handle on a folder of raw images: cheap to make, reads one image at a time.

    Args:
        path: Root of the raw images. It may itself be a link; nothing below it may.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def read(self, relative: str) -> Image.Image:
        """Reads the image at `relative` (posix, relative to the root); see `read_image`."""
        return read_image(self.path / relative, root=self.path)

    def read_mask(self, relative: str) -> np.ndarray:
        """Reads the mask at `relative` as bool (H, W); see `read_mask`."""
        return read_mask(self.path / relative, root=self.path)

    def __repr__(self) -> str:
        return f"ImageFolder({str(self.path)!r})"


def read_image(
    path: Path, *, root: Path | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """Reads one image as 8-bit "L" or "RGB", EXIF orientation applied.

    Args:
        path: The file.
        root: If given, `path` must lie below it without passing through a link.
        max_pixels: Largest width times height that is decoded.

    Raises:
        ImageError: The path leaves the root, or the file is missing, empty, damaged, too large,
            animated, or of a format or mode that is not converted.
    """
    data = read_bytes(path, root=root, max_pixels=max_pixels)
    return to_eight_bit(open_image(data, path, max_pixels), path)


def read_mask(path: Path, *, root: Path | None = None, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Reads a mask: bool (H, W), True where any channel is not zero (alpha is not looked at).

    In a palette mask index 0 is "no defect" where its colour is black, as usual; otherwise the
    colours decide. Of a folder of masks, one a defect of the same image, it is their union.

    Args:
        path: The file, or the folder.
        root: If given, `path` must lie below it without passing through a link.
        max_pixels: Largest width times height that is decoded.

    Raises:
        ImageError: As `read_image`.
    """
    masks = [
        mask_array(open_image(read_bytes(one, root=root, max_pixels=max_pixels), one, max_pixels))
        for one in _mask_files(path if root is None else resolve_inside(root, path))
    ]
    for one in masks[1:]:
        if one.shape != masks[0].shape:
            raise ImageError(
                f"{path} holds masks of {masks[0].shape[1]}x{masks[0].shape[0]} and "
                f"{one.shape[1]}x{one.shape[0]} pixels: all must have the size of their image."
            )
    return np.logical_or.reduce(masks)


def _mask_files(path: Path) -> list[Path]:
    """Returns the image files of a folder of masks, or the file itself."""
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
    """Returns `path` if it lies below `root`, passes through no link and climbs out nowhere.

    The path that is returned has the normal form (NFC or NFD) that the name has on the disk.

    Raises:
        ImageError: It does not.
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
    """Reads a regular file that is not empty and not absurdly large.

    Raises:
        ImageError: The path leaves the root or is no such file.
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
                f"{path} has {status.st_size:,} bytes, more than an image of {max_pixels:,} pixels "
                "can need: tile or shrink it."
            )
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageError(
            f"{path} does not exist: restore it or take it out of the list."
        ) from error
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeEncodeError as error:
        raise ImageError(encoding_complaint(path.name, path.parent)) from error
    except ValueError as error:
        raise ImageError(f"{str(path)!r} cannot be the name of a file: {error}.") from error


def open_image(data: bytes, path: Path, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decodes `data` fully, in the mode that the file has, EXIF orientation applied.

    Args:
        data: The file's content.
        path: Only for messages.
        max_pixels: Largest width times height that is decoded.

    Raises:
        ImageError: See `read_image`.
    """
    try:
        image = _open(data, path, max_pixels)
        image.load()
        return ImageOps.exif_transpose(image)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"{path} says it has more than {max_pixels:,} pixels: tile or shrink it."
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{path} is no readable PNG, JPEG, BMP, TIFF or WebP image (it begins with "
            f"{data[:8]!r}): replace or remove it."
        ) from error
    except Exception as error:  # Pillow's plugins raise whatever a damaged file leads them to
        raise ImageError(
            f"{path} is damaged ({error}): copy it again from its source or remove it."
        ) from error


def _open(data: bytes, path: Path, max_pixels: int) -> Image.Image:
    """Opens `data` lazily and checks everything the header tells."""
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if image.width * image.height > max_pixels:
        raise ImageError(
            f"{path} says it has {image.width}x{image.height} pixels, more than the "
            f"{max_pixels:,} that are read: tile or shrink it."
        )
    # A phone's MPO is a JPEG with a second picture behind the first.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise ImageError(
            f"{path} has {getattr(image, 'n_frames', 1)} frames: animated and multi-page images "
            "are refused, save the frame you want as a file of its own."
        )
    if image.format == "PNG":
        # load() skips the checksums of the pixel data, verify() checks them (and closes its image)
        Image.open(io.BytesIO(data), formats=("PNG",)).verify()
    return image


def suffix_of(data: bytes) -> str:
    """The suffix of an image file that has been read before, by its content."""
    return SUFFIX_OF.get(Image.open(io.BytesIO(data), formats=FORMATS).format or "", ".webp")


def mask_array(image: Image.Image) -> np.ndarray:
    """Turns a decoded mask into bool (H, W): True where any channel but alpha is not zero."""
    coloured = image.mode == "P" and any((image.getpalette() or [0])[:3])  # index 0 is not black
    if coloured or image.mode in {"CMYK", "YCbCr"}:  # whose zeros are not black either
        image = image.convert("RGB")
    values = np.asarray(image)
    if values.ndim == 2:  # noqa: PLR2004
        return values != 0
    channels = values.shape[2] - (image.mode in {"LA", "RGBA"})
    return (values[:, :, :channels] != 0).any(axis=2)
