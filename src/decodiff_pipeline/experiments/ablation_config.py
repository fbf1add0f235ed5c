"""Which variants of the method are compared; importing this costs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from decodiff_pipeline.training.config import TrainingConfig
    from decodiff_pipeline.training.scoring import ScoringConfig

# A length given in one unit takes the place of one given in another.
LENGTHS = ("epochs", "steps", "max_minutes")
UNKNOWN_KEY = {"extra_forbidden", "unexpected_keyword_argument"}  # of a model, of a dataclass
STRICT = ConfigDict(extra="forbid", frozen=True)
Parameters = TypeVar("Parameters", bound=BaseModel)


class Variant(BaseModel):
    """One way of doing it: what differs from the base configuration.

    Attributes:
        name: Name in the table and the plot.
        training: Parameters of ``training`` that differ; a variant with any is trained anew.
        scoring: Parameters of ``scoring`` that differ.
    """

    model_config = STRICT

    name: Text = Field(min_length=1)
    training: dict[str, Any] = {}
    scoring: dict[str, Any] = {}


class Study(BaseModel):
    """One question, and the variants that answer it.

    Attributes:
        name: Name in the table and the plot.
        variants: What is compared. One that equals the base configuration costs nothing more.
    """

    model_config = STRICT

    name: Text = Field(min_length=1)
    variants: tuple[Variant, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        _no_repetition([variant.name for variant in self.variants], f"study {self.name!r}")
        return self


class AblationConfig(BaseModel):
    """What the ablation compares, and how much it may cost.

    Attributes:
        training: Parameters of ``training`` that differ in every network of the ablation, the
            base's too: its length above all.
        seeds: Every variant is trained and scored once for each; with several, mean and standard
            deviation are reported. They take the place of ``training.seed``.
        keep_networks: Keep the networks of variants that are finished, each four times the size
            of its weights. The base's always stays, as most variants use it.
        studies: What is compared, study by study.
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
    """One network scored in one way."""

    training: TrainingConfig  # how it is trained, seed and length included
    scoring: ScoringConfig  # how it is scored


class PlannedVariant(NamedTuple):
    """A variant with nothing left open."""

    study: str  # name of its study; empty for the base
    variant: Variant  # what was asked for
    jobs: tuple[Job, ...]  # one for each seed
    skipped: str | None = None  # why it is not done, if it is not


def plan(
    config: AblationConfig,
    training: TrainingConfig,
    scoring: ScoringConfig,
    *,
    has_posterior: bool,
) -> list[PlannedVariant]:
    """Work out every variant before any is begun.

    Of what the scoring fits on val images, only the clip limits are kept (unless a variant asks
    for more): a weight or an image score chosen anew for each variant would hide what the variant
    changes.

    Returns:
        The base, then the variants in their order.

    Raises:
        ConfigurationError: A variant's value is out of range; the message names the variant.
    """
    base = _resolved(training, config.training, "ablation.training")
    if scoring.fit != "none":
        scoring = scoring.model_copy(update={"fit": "limits"})
    wanted = [("", Variant(name="base"))]
    wanted += [(study.name, variant) for study in config.studies for variant in study.variants]
    planned = []
    for study, variant in wanted:
        where = f"ablation study {study!r}, variant {variant.name!r}"
        trained = _resolved(base, variant.training, f"{where}: training")
        scored = _resolved(scoring, variant.scoring, f"{where}: scoring")
        seeded = [trained.model_copy(update={"seed": seed}) for seed in config.seeds]
        skipped = None
        if "sample_posterior" in variant.training and not has_posterior:
            skipped = "the autoencoder has no posterior to sample from"
        jobs = tuple(Job(each, scored) for each in seeded)
        planned.append(PlannedVariant(study, variant, jobs, skipped))
    return planned


def _resolved(base: Parameters, overrides: Mapping[str, Any], where: str) -> Parameters:
    """The base with some parameters replaced, checked as if they stood in its YAML file."""
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
            f"ablation: {where} has {repeated[0]!r} twice; give each a name or number of its own"
        )
