"""Parameters of the ablation and its planned variants; does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from decodiff_pipeline.training.config import TrainingConfig
    from decodiff_pipeline.training.scoring import ScoringConfig

# Alternative units of the length of training; a variant that sets one unsets the others.
LENGTHS = ("epochs", "steps", "max_minutes")
UNKNOWN_KEY = {"extra_forbidden", "unexpected_keyword_argument"}  # pydantic's error types
STRICT = ConfigDict(extra="forbid", frozen=True)
Parameters = TypeVar("Parameters", bound=BaseModel)


class Variant(BaseModel):
    """A variant: its differences from the base configuration.

    Attributes:
        name: Name in the table and the plot.
        training: Parameters of ``training`` that differ; a variant with any has its own network.
        scoring: Parameters of ``scoring`` that differ.
    """

    model_config = STRICT

    name: Text = Field(min_length=1)
    training: dict[str, Any] = {}
    scoring: dict[str, Any] = {}


class Study(BaseModel):
    """A group of variants that are compared with each other.

    Attributes:
        name: Name in the table and the plot.
        variants: The variants. One that equals the base configuration is not computed again.
    """

    model_config = STRICT

    name: Text = Field(min_length=1)
    variants: tuple[Variant, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        _no_repetition([variant.name for variant in self.variants], f"study {self.name!r}")
        return self


class AblationConfig(BaseModel):
    """The variants of the ablation and their training length.

    Attributes:
        training: Parameters of ``training`` that differ in all networks of the ablation, also the
            base's, such as the number of steps.
        seeds: Training seeds, instead of ``training.seed``. Every variant is trained and evaluated
            once per seed; with several, mean and standard deviation are reported.
        keep_networks: Whether to keep the checkpoints of finished variants, each four times the
            size of its weights. Those of the base are always kept.
        studies: The groups of variants.
    """

    model_config = STRICT

    training: dict[str, Any] = {}
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    keep_networks: bool = False
    studies: tuple[Study, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _no_repetition(list(self.seeds), "seeds")
        _no_repetition([study.name for study in self.studies], "studies")
        return self


class Job(NamedTuple):
    """The complete parameters of a variant with one seed."""

    training: TrainingConfig  # with seed and length
    scoring: ScoringConfig


class PlannedVariant(NamedTuple):
    """A variant with its jobs."""

    study: str  # name of its study; empty for the base
    variant: Variant
    jobs: tuple[Job, ...]  # one per seed
    skipped: str | None = None  # the reason, if it is skipped


def plan(
    config: AblationConfig,
    training: TrainingConfig,
    scoring: ScoringConfig,
    *,
    has_posterior: bool,
) -> list[PlannedVariant]:
    """Resolve and validate the parameters of all variants.

    The scoring fits only its clip limits (unless a variant sets ``fit``), because a fusion weight
    or image score that is fitted to each variant would hide the variant's effect.

    Returns:
        The base, then the variants in their order.

    Raises:
        ConfigurationError: A variant's value is invalid; the message names the variant.
    """
    base = _resolved(training, config.training, "ablation.training")
    if scoring.fit != "none":
        scoring = scoring.model_copy(update={"fit": "limits"})
    variants = [("", Variant(name="base"))]
    variants += [(study.name, variant) for study in config.studies for variant in study.variants]
    planned = []
    for study, variant in variants:
        where = f"ablation study {study!r}, variant {variant.name!r}"
        trained = _resolved(base, variant.training, f"{where}: training")
        scored = _resolved(scoring, variant.scoring, f"{where}: scoring")
        seeded = [trained.model_copy(update={"seed": seed}) for seed in config.seeds]
        skipped = None
        if "sample_posterior" in variant.training and not has_posterior:
            skipped = "the autoencoder has no posterior to sample from"
        jobs = tuple(Job(with_seed, scored) for with_seed in seeded)
        planned.append(PlannedVariant(study, variant, jobs, skipped))
    return planned


def _resolved(base: Parameters, overrides: Mapping[str, Any], where: str) -> Parameters:
    """The base with overrides, validated like the parameters of a YAML file."""
    merged = base.model_dump()
    if any(name in overrides for name in LENGTHS):
        merged |= {name: None for name in LENGTHS if name in merged}
    merged = _merged(merged, overrides)
    try:
        return type(base).model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join([where, *(str(part) for part in first["loc"])])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] in UNKNOWN_KEY:
            message = "there is no such parameter"
        given = f" is {first['input']!r};" if first["loc"] else ":"
        raise ConfigurationError(f"{key}{given} {message[:1].lower() + message[1:]}") from error
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from error


def _merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in overrides.items():
        nested = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if nested else value
    return result


def _no_repetition(names: list[Any], where: str) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigurationError(
            f"ablation: {where} has {repeated[0]!r} twice; names and seeds must be unique"
        )
