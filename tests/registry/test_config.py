"""Names that MLflow would refuse are refused before a run."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from decodiff_pipeline.registry.config import RegistrationConfig


@pytest.mark.parametrize(
    "wrong",
    [
        {"model_name": "a/b"},
        {"model_name": " "},
        {"alias": "latest"},
        {"alias": "v2"},
        {"alias": "two words"},
        {"max_images": 0},
        {"modelname": "x"},
    ],
)
def test_wrong_values(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        RegistrationConfig.model_validate(wrong)


def test_no_alias_is_a_choice() -> None:
    assert RegistrationConfig(alias=None).alias is None
