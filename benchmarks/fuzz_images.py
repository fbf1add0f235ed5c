"""Damaged image files by the thousand: ``python -m benchmarks.fuzz_images [files of each format]``.

Every file is read in one process under a limit of memory. Nothing may come of it but pixels or an
`ImageError`, within two seconds; accepted pixels must be those that Pillow gives. How many accepted
files show other pixels than the sound file is told as well: a flipped bit within a coded value is
no damage that any decoder sees.
"""

from __future__ import annotations

import io
import json
import resource
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from decodiff_pipeline.data.decoding import FORMATS, decode
from decodiff_pipeline.deco.colour import orientation_of, turned
from decodiff_pipeline.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY = 2 * 2**30  # bytes of address space
LONGEST_S = 2.0
SIDES = (16, 96)  # of the pictures, in pixels
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "PNG": [{}, {"compress_level": 0}, {"optimize": True}],
    "JPEG": [{"quality": 90}, {"progressive": True}, {"restart_marker_blocks": 3}, {"quality": 20}],
    "BMP": [{}],
    "TIFF": [
        {},
        *({"compression": name} for name in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")),
    ],
    "WEBP": [{"lossless": True}, {"quality": 80}],
}
MODES = {
    "PNG": ("L", "RGB", "RGBA", "P", "1", "LA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "BMP": ("L", "RGB", "P", "1"),
    "TIFF": ("L", "RGB", "1", "CMYK", "I;16"),
    "WEBP": ("RGB", "RGBA"),
}


def sound(kind: str, rng: np.random.Generator) -> bytes:
    """A sound file of a format, in one of its modes and with one of its options."""
    width, height = (int(side) for side in rng.integers(*SIDES, 2))
    picture = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    options = OPTIONS[kind][rng.integers(len(OPTIONS[kind]))]
    modes = MODES[kind] if options.get("compression") != "jpeg" else ("L", "RGB")
    mode = modes[rng.integers(len(modes))]
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 200)
    else:
        picture = picture.convert(mode)
    if rng.random() < 0.3:
        exif = Image.Exif()
        exif[0x0112], exif[0x010E] = int(rng.integers(1, 9)), "a description"
        options = options | {"exif": exif}
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """The file with one to three faults, as transfers, disks and scripts make them."""
    for _ in range(int(rng.integers(1, 4))):
        at, length = int(rng.integers(len(data))), int(rng.integers(1, 1 + max(1, len(data) // 4)))
        before, piece, after = data[:at], data[at : at + length], data[at + length :]
        noise = rng.integers(0, 256, len(piece), dtype=np.uint8).tobytes()
        data = (
            lambda: before + bytes([piece[0] ^ (1 << int(rng.integers(8)))]) + piece[1:] + after,
            lambda: before + noise + after,
            lambda: before + b"\0" * len(piece) + after,
            lambda: before + after,
            lambda: before + piece + piece + after,
            lambda: before,
            lambda: before + b"\xff\xff\xff\xff" + data[at + 4 :],
            lambda: before + b"\xff\xd9",
        )[int(rng.integers(8))]() or b"\0"
    return data


def reference(data: bytes, orientation: int | None = None) -> np.ndarray | None:
    """Pillow's own pixels, turned by an EXIF orientation; ``None`` where it gives none.

    Args:
        data: The file.
        orientation: 1 to 8; by default what the file says.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        image.load()
    except Exception:  # whatever a plugin raises
        return None
    return np.asarray(turned(image, orientation or orientation_of(image)[0]))


def judged(data: bytes, whole: np.ndarray | None) -> str:
    """What reading a file came to."""
    start = time.perf_counter()
    try:
        found = decode(data, Path("fuzzed"))
        found.eight_bit()
    except ImageError:
        verdict = "refused"
    except Exception as error:  # that is what is looked for
        return f"crash: {type(error).__name__}: {error}"
    else:
        pixels, own = np.asarray(found.image), reference(data, found.orientation)
        if own is not None and not np.array_equal(pixels, own):
            return "other pixels than Pillow's"
        same = whole is not None and np.array_equal(pixels, whole)
        verdict = "sound" if same else "changed unnoticed"
    return verdict if time.perf_counter() - start < LONGEST_S else "slow"


def fuzz(kind: str, count: int, seed: int, on_fault: Callable[[str, bytes], None]) -> Counter[str]:
    """Reads ``count`` damaged files of a format.

    Args:
        kind: One of `FORMATS`.
        count: How many files.
        seed: Of all that is drawn.
        on_fault: Gets the verdict and the file of everything that must not be.

    Returns:
        How many were refused, and accepted with the sound file's pixels or with others.
    """
    rng = np.random.default_rng([seed, FORMATS.index(kind)])
    verdicts: Counter[str] = Counter()
    for _ in range(count):
        whole = sound(kind, rng)
        data = mutated(whole, rng)
        verdict = judged(data, reference(whole))
        verdicts[verdict] += 1
        if verdict not in {"refused", "sound", "changed unnoticed"}:
            on_fault(verdict, data)
    return verdicts


def main(arguments: list[str]) -> None:
    """Print a line for each format; end with status 1 where something must not be."""
    count = int(arguments[0]) if arguments else 2000
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    faults: list[str] = []
    for kind in FORMATS:
        start = time.perf_counter()
        verdicts = fuzz(kind, count, 0, lambda verdict, _: faults.append(verdict))
        seconds = round(time.perf_counter() - start, 1)
        print(json.dumps({"format": kind, **verdicts, "seconds": seconds}), flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"faults": Counter(faults), "peak_mb": peak}))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
