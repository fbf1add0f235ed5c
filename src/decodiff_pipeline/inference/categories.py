"""The categories of a saved model and of the images that it is to score."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.data.file_names import nfc
from decodiff_pipeline.deco.config import AUTO
from decodiff_pipeline.deco.recognition import FOLDER, without_recogniser
from decodiff_pipeline.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from decodiff_pipeline.inference.source import Item


def model_categories(model: Path) -> list[str]:
    """The categories of a saved pipeline, without loading it.

    Raises:
        ModelError: Its files are damaged.
    """
    path = model / "unet" / "config.json"
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["categories"])
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path} cannot be read ({error}); run {kedro_run('training')} to make it again"
        ) from error


def as_the_model_spells(items: Sequence[Item], known: Sequence[str]) -> list[Item]:
    """Gives categories the Unicode normal form in which the model knows them."""
    spelling = {nfc(name): name for name in known}
    return [replace(one, category=spelling.get(nfc(one.category), one.category)) for one in items]


def check_categories(items: Sequence[Item], known: Sequence[str], model: Path) -> None:
    for item in items:
        if item.category == AUTO and AUTO not in known:
            if not (model / FOLDER).is_dir():
                raise ModelError(f"{item.path} has no category: {without_recogniser(known)}")
        elif item.category not in known:
            raise ModelError(
                f"{item.path} has the category {item.category!r}, which the model does not know; "
                f"it knows {', '.join(known)} (inference.category names one for all images)"
            )
