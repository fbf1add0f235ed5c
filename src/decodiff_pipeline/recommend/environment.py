"""Renders the YAML files of a recommended environment, with reasons as comments."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import yaml

from decodiff_pipeline.data.acquire import RAW
from decodiff_pipeline.data.atomic import replacing
from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.recommend.choices import choose_flips, choose_views

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from decodiff_pipeline.data.manifest import DataConfig
    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.recommend.choices import Choice, Facts
    from decodiff_pipeline.recommend.config import BaseParameters

HEADER = """\
# Written by kedro run --pipelines recommend; change what you know better.
# A value without a reason is that of conf/base: a group has to be complete, since it takes the
# place of the group there.
"""


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write files into ``conf/<name>``.

    Raises:
        ConfigurationError: A file cannot be written.
    """
    try:
        for name, content in files.items():
            with replacing(folder / name) as temporary:
                temporary.write_text(content, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(
            f"{folder} cannot be written ({error.strerror or error}): free some space or make it "
            "writable"
        ) from error


def dataset_file(dataset: str) -> str:
    """``globals.yml``."""
    return _render({"dataset": dataset}, {"dataset": f"the images are in {RAW}/{dataset}"})


def data_file(data: DataConfig, why: str) -> str:
    """``parameters_data.yml``, with the reason for the layout."""
    values = data.model_dump(mode="json", exclude_unset=True)
    counts = "exact numbers of val and calibration images, also for small data sets"
    return _render({"data": values}, {"data.layout": why, "data.split_version": counts})


def caching_file(
    base: BaseParameters,
    facts: Facts,
    geometry: PreprocessConfig,
    reasons: Mapping[str, str],
    autoencoder: Choice,
) -> str:
    """``parameters_caching.yml``, with ``reasons`` by the names of the geometry's fields."""
    latents = base.latents.model_dump(mode="json", exclude_unset=True)
    views, flips = choose_views(facts, geometry), choose_flips(facts)
    augmentation = asdict(base.latents.augmentation)
    augmentation |= {name: choice.value for name, choice in flips.items()}
    latents |= {"views": views.value, "augmentation": augmentation}
    why = {f"preprocessing.{name}": reason for name, reason in reasons.items()}
    why |= {"autoencoder.source": autoencoder.why, "latent_cache.views": views.why}
    why |= {f"latent_cache.augmentation.{name}": one.why for name, one in flips.items()}
    groups = {
        "preprocessing": asdict(geometry),
        "autoencoder": asdict(autoencoder.value),
        "latent_cache": latents,
    }
    return _render(groups, why)


def training_file(
    base: BaseParameters, geometry: PreprocessConfig, preset: Choice, steps: Choice
) -> str:
    """``parameters_training.yml``."""
    training = base.training.model_dump(mode="json", exclude_unset=True)
    for length in ("epochs", "max_minutes"):
        training.pop(length, None)
    training |= {"preset": preset.value, "steps": steps.value}
    groups: dict[str, Any] = {"training": training}
    why = {"training.preset": preset.why, "training.steps": steps.why}
    if geometry.fit == "tile":
        scoring = base.scoring.model_dump(mode="json", exclude_unset=True)
        discrepancy = dict(scoring.get("discrepancy") or {}) | {"normalisation": "none"}
        groups["scoring"] = scoring | {"discrepancy": discrepancy}
        why["scoring.discrepancy.normalisation"] = "not possible by position with tiles"
    return _render(groups, why)


def _render(groups: Mapping[str, Any], reasons: Mapping[str, str]) -> str:
    """YAML with ``reasons`` (dotted name → text) as comments."""
    return HEADER + "".join(f"{line}\n" for line in _lines(groups, reasons, "", ""))


def _lines(
    tree: Mapping[str, Any], reasons: Mapping[str, str], prefix: str, indent: str
) -> list[str]:
    lines = []
    for key, value in tree.items():
        name = f"{prefix}{key}"
        comment = f" # {' '.join(reasons[name].split())}" if name in reasons else ""
        if isinstance(value, dict) and value:
            lines.append(f"{indent}{key}:{comment}")
            lines += _lines(value, reasons, f"{name}.", f"{indent}  ")
        else:
            lines.append(f"{indent}{_scalar(key)}: {_scalar(value)}{comment}")
    return lines


def _scalar(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
