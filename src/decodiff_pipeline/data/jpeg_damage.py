"""Damage of a JPEG file that its decoder hides.

libjpeg fills up what is missing of the coded pixels, with grey mostly, and only warns; Pillow does
not pass the warning on. So a file that was cut and closed with an end marker looks whole. Three
questions find it, without decoding a symbol here:

- Do the coded pixels reach to the end? Where other bytes are put behind each of their segments and
  the picture changes, the decoder was still reading: something is missing.
- Does the decoder need all of them? Where the last bytes are replaced and the picture stays the
  same, it was done before: bytes in the middle were lost or overwritten. Padding by zeros is sound.
- Are all restart markers and all scans of a progressive file there?
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

MARKER = re.compile(rb"\xff+(?![\x00\xff])(.)", re.DOTALL)
END_MARKER = b"\xff\xd9"
END, START_OF_SCAN, RESTART_INTERVAL, PROGRESSIVE = 0xD9, 0xDA, 0xDD, 0xC2
FRAMES = frozenset({0xC0, 0xC1, PROGRESSIVE})
RESTARTS = range(0xD0, 0xD8)
ALONE = frozenset({0x01, 0xD8, *RESTARTS})  # markers without a length
FILLER = np.random.default_rng(0).integers(1, 255, 64, dtype=np.uint8).tobytes()
FILLERS = (FILLER, bytes(255 - byte or 1 for byte in FILLER))
TAIL = 16  # bytes at the end of the coded pixels that a sound picture needs
PADDING = 8  # zeros at the end from which on they may be padding
LAST_COEFFICIENT = 63
EIGHTH = 8  # the decoder gives an eighth of the size at a fraction of the time


@dataclass
class Scans:
    """Where the coded pixels of a JPEG file lie.

    Attributes:
        segments: Start and end of each piece between two markers, in bytes.
        restarts: The restart markers of each scan, in order.
        headers: Of each scan, as in the file.
        intervals: The restart interval in force at each scan, in blocks; 0 for none.
        frame: The header of the frame: precision, height, width, components.
        progressive: Whether the frame is.
        end: Where the end marker is; -1 without one.
    """

    segments: list[tuple[int, int]] = field(default_factory=list)
    restarts: list[list[int]] = field(default_factory=list)
    headers: list[bytes] = field(default_factory=list)
    intervals: list[int] = field(default_factory=list)
    frame: bytes = b""
    progressive: bool = False
    end: int = -1


def jpeg_damage(data: bytes) -> str:
    """Says what is wrong with the coded pixels of a JPEG file that Pillow decodes.

    Args:
        data: The file; of several pictures (a phone's MPO), the first is looked at.

    Returns:
        What is wrong; "" where nothing is, or where the file is of a kind that is not looked at
        (lossless, arithmetic).
    """
    scans = _scans(data)
    if not scans.frame:
        return ""
    if scans.end < 0 or not scans.segments or (scans.progressive and _lacks_scans(scans)):
        return "its end is missing"
    if any(_lacks_restarts(scans, number) for number in range(len(scans.headers))):
        return "restart markers are missing or out of order"
    scale = 1 if scans.progressive else EIGHTH  # an eighth shows no more than a block's mean
    parts, last = [], 0
    for _, end in scans.segments:
        parts += [data[last:end], FILLER]
        last = end
    filled = b"".join([*parts, data[last : scans.end], END_MARKER])
    if not _same(_pixels(data, scale), filled, scale):
        return "coded pixels are missing"
    if not scans.progressive and _reads_less(data, *scans.segments[-1]):
        return "coded pixels are left over"
    return ""


def _scans(data: bytes) -> Scans:
    found, at, interval = Scans(), 2, 0
    while match := MARKER.search(data, at):
        kind, at = match[1][0], match.end()
        if kind == END:
            found.end = match.start()
            break
        if kind in ALONE:
            continue
        content = data[at + 2 : at + int.from_bytes(data[at : at + 2], "big")]
        at += 2 + len(content)
        if kind in FRAMES:
            found.frame, found.progressive = content, kind == PROGRESSIVE
        elif kind == RESTART_INTERVAL:
            interval = int.from_bytes(content[:2], "big")
        elif kind == START_OF_SCAN:
            found.headers.append(content)
            found.intervals.append(interval)
            at = _segments(data, at, found)
    return found


def _segments(data: bytes, at: int, found: Scans) -> int:
    """Adds the pieces of one scan; returns where its last one ends."""
    restarts: list[int] = []
    found.restarts.append(restarts)
    while True:
        match = MARKER.search(data, at)
        end = match.start() if match else len(data)
        found.segments.append((at, end))
        if match is None or match[1][0] not in RESTARTS:
            return end
        restarts.append(match[1][0])
        at = match.end()


def _lacks_scans(scans: Scans) -> bool:
    """Whether a coefficient never came to its last bit."""
    last_bit: dict[tuple[int, int], int] = {}
    for header in scans.headers:
        count = header[0]
        first, last, bits = header[1 + 2 * count : 4 + 2 * count]
        for component in header[1 : 1 + 2 * count : 2]:
            for coefficient in range(first, min(last, LAST_COEFFICIENT) + 1):
                last_bit[component, coefficient] = bits & 15
    components = scans.frame[6::3]
    return any(
        last_bit.get((component, coefficient), 1)
        for component in components
        for coefficient in range(LAST_COEFFICIENT + 1)
    )


def _lacks_restarts(scans: Scans, number: int) -> bool:
    """Whether a scan has other restart markers than its blocks ask for."""
    interval, found = scans.intervals[number], scans.restarts[number]
    if not interval:
        return bool(found)
    wanted = -(-_blocks(scans, scans.headers[number]) // interval) - 1
    return found != [RESTARTS[i % len(RESTARTS)] for i in range(wanted)]


def _blocks(scans: Scans, header: bytes) -> int:
    """Units that a scan's restart interval counts: of all components, or of its only one."""
    height, width = (int.from_bytes(scans.frame[at : at + 2], "big") for at in (1, 3))
    factors = {
        scans.frame[i]: divmod(scans.frame[i + 1], 16) for i in range(6, len(scans.frame), 3)
    }
    across, down = (max(pair[side] for pair in factors.values()) for side in (0, 1))
    if header[0] > 1:
        return -(-width // (8 * across)) * -(-height // (8 * down))
    own = factors[header[1]]
    columns, rows = -(-width * own[0] // across), -(-height * own[1] // down)
    return -(-columns // 8) * -(-rows // 8)


def _reads_less(data: bytes, start: int, end: int) -> bool:
    """Whether the decoder is done before the last coded pixels, padding aside."""
    whole = _pixels(data, 1)

    def ignored(at: int) -> bool:
        return all(_same(whole, data[:at] + filler + END_MARKER, 1) for filler in FILLERS)

    body = data[start:end]
    zeros = len(body) - len(body.rstrip(b"\0"))
    if zeros > PADDING and ignored(end - zeros + 2):
        end -= zeros
    return end - start > 2 * TAIL and ignored(end - TAIL)


def _pixels(data: bytes, scale: int) -> np.ndarray:
    image = Image.open(io.BytesIO(data), formats=("JPEG",))
    if scale > 1:
        image.draft(image.mode, (max(1, image.width // scale), max(1, image.height // scale)))
    return np.asarray(image)


def _same(picture: np.ndarray, data: bytes, scale: int) -> bool:
    try:
        return np.array_equal(picture, _pixels(data, scale))
    except OSError:
        return False
