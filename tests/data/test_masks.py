from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from decodiff_pipeline.data.masks import parse_mask

if TYPE_CHECKING:
    from collections.abc import Callable

DEFECT = np.zeros((48, 48), bool)
DEFECT[10:30, 10:30] = True
TOUCHING = np.zeros((48, 48), bool)
TOUCHING[:20, :] = True  # a part of the border, less than half of the picture


def grey(background: int, mark: int, defect: np.ndarray = DEFECT) -> Image.Image:
    return Image.fromarray(np.where(defect, mark, background).astype(np.uint8))


def palette(background: tuple[int, int, int], mark: tuple[int, int, int]) -> Image.Image:
    image = Image.frombytes("P", (48, 48), DEFECT.astype(np.uint8).tobytes())
    image.putpalette([*background, *mark])
    return image


def rgba(background: tuple[int, ...], mark: tuple[int, ...]) -> Image.Image:
    values = np.empty((48, 48, 4), np.uint8)
    values[:], values[DEFECT] = background, mark
    return Image.fromarray(values)


BACKGROUNDS: dict[str, Callable[[], Image.Image]] = {
    "grey palette": lambda: palette((64, 64, 64), (255, 255, 255)),
    "white palette": lambda: palette((255, 255, 255), (255, 0, 0)),
    "white palette, black defect": lambda: palette((255, 255, 255), (0, 0, 0)),
    "alpha alone": lambda: rgba((255, 255, 255, 0), (255, 255, 255, 255)),
    "alpha alone, black": lambda: rgba((0, 0, 0, 0), (0, 0, 0, 255)),
    "erased": lambda: rgba((9, 9, 9, 255), (9, 9, 9, 0)),
    "grey without zero": lambda: grey(64, 255),
    "white without zero": lambda: grey(255, 7),
    "white, red defect": lambda: rgba((255, 255, 255, 255), (255, 0, 0, 255)).convert("RGB"),
}


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_the_ground_covers_the_border(name: str) -> None:
    found = parse_mask(BACKGROUNDS[name]())
    assert np.array_equal(found.defect, DEFECT)
    assert bool(found.note) == (not name.startswith("alpha"))


@pytest.mark.parametrize("defect", [DEFECT, TOUCHING, ~TOUCHING, np.ones_like(DEFECT)])
@pytest.mark.parametrize("mark", [1, 255])
def test_a_plain_mask_marks_what_is_not_zero_wherever_it_is(defect: np.ndarray, mark: int) -> None:
    for image in (grey(0, mark, defect), grey(0, mark, defect).convert("RGB")):
        found = parse_mask(image)
        assert np.array_equal(found.defect, defect)
        assert found.note == ""


def test_a_black_palette_ground_stays_the_ground() -> None:
    image = Image.frombytes("P", (48, 48), (~TOUCHING).astype(np.uint8).tobytes())
    image.putpalette([0, 0, 0, 255, 255, 255])
    assert np.array_equal(parse_mask(image).defect, ~TOUCHING)


@pytest.mark.parametrize("mode", ["L", "P"])
def test_255_beside_numbered_defects_is_a_border_that_nobody_judged(mode: str) -> None:
    values = np.zeros((48, 48), np.uint8)
    values[6:34, 6:34] = 255
    values[DEFECT] = 3
    image = Image.frombytes("L", (48, 48), values.tobytes())
    if mode == "P":
        image = Image.frombytes("P", (48, 48), values.tobytes())
        image.putpalette([0, 0, 0, 128, 0, 0] + [200, 100, 50] * 254)
    found = parse_mask(image)
    assert np.array_equal(found.defect, DEFECT)
    assert "255" in found.note


def test_few_stray_values_beside_255_are_no_numbers() -> None:
    values = np.where(DEFECT, 255, 0).astype(np.uint8)
    values[9, 10:15] = 1  # a soft edge
    assert parse_mask(Image.fromarray(values)).defect.sum() == 405
    values[9, 10:15] = 100
    assert parse_mask(Image.fromarray(values)).defect.sum() == 405
