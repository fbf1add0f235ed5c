"""What is registered, and what the served model accepts."""

from __future__ import annotations

import re

from pydantic import BaseModel, ConfigDict, Field, field_validator

from decodiff_pipeline.text import Text

# MLflow keeps these for versions: models:/name@latest, models:/name@v3.
RESERVED_ALIAS = re.compile(r"latest|[vV]\d+")


class RegistrationConfig(BaseModel):
    """Parameters of the registration (``conf/*/parameters_registration.yml``).

    Attributes:
        dataset: Name of the data set, kept as a tag of the version.
        model_name: Name in the model registry; a new version is added to it.
        alias: Alias that moves to the version just registered, for the promotion to find; ``null``
            sets none. ``champion`` is the promotion's to give.
        max_images: Most images that the served model takes in one request.
        max_pixels: Most pixels (width times height) of one image in a request.
        batch_size: Images the served model computes at once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    dataset: Text | None = None
    model_name: Text = "decodiff"
    alias: Text | None = "challenger"
    max_images: int = Field(default=64, ge=1)
    max_pixels: int = Field(default=50_000_000, ge=1)
    batch_size: int = Field(default=16, ge=1)

    @field_validator("model_name")
    @classmethod
    def _fits_into_a_uri(cls, name: str) -> str:
        if not name.strip() or set(name) & set("/:@"):
            raise ValueError("use a name without '/', ':' and '@'")
        return name

    @field_validator("alias")
    @classmethod
    def _is_free(cls, alias: str | None) -> str | None:
        if alias is None:
            return None
        if not re.fullmatch(r"[\w-]+", alias) or RESERVED_ALIAS.fullmatch(alias):
            raise ValueError("use letters, digits, '-' and '_', and neither 'latest' nor 'v1'")
        return alias
