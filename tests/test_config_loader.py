"""What `--params` changes, whatever environment it meets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from decodiff_pipeline.config_loader import ConfigLoader
from decodiff_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

BASE = """
training: {steps: 850, corruption: {max_mask_ratio: 0.7, max_shuffle_ratio: 1.0}}
scoring: {fit: all, batch_size: 32}
"""


def loader(conf: Path, files: dict[str, str], given: dict[str, Any] | None = None) -> ConfigLoader:
    for name, text in {"base/globals.yml": "", "local/.gitkeep": "", **files}.items():
        (conf / name).parent.mkdir(exist_ok=True)
        (conf / name).write_text(text)
    return ConfigLoader(str(conf), base_env="base", default_run_env="local", runtime_params=given)


def parameters(conf: Path, given: dict[str, Any], local: str = "") -> dict[str, Any]:
    files = {"base/parameters.yml": BASE, "local/parameters.yml": local}
    return loader(conf, files, given)["parameters"]


@pytest.mark.parametrize("local", ["", "other: {seeds: [0]}"])
def test_the_rest_of_a_group_stays(tmp_path: Path, local: str) -> None:
    given = {"scoring": {"fit": "none"}, "training": {"corruption": {"max_mask_ratio": 0.5}}}
    found = parameters(tmp_path, given, local)
    assert found["scoring"] == {"fit": "none", "batch_size": 32}
    assert found["training"] == {
        "steps": 850,
        "corruption": {"max_mask_ratio": 0.5, "max_shuffle_ratio": 1.0},
    }


def test_a_group_of_the_environment_takes_the_place_of_the_base_s(tmp_path: Path) -> None:
    found = parameters(tmp_path, {"training": {"seed": 3}}, "training: {epochs: 2}")
    assert found["training"] == {"epochs": 2, "seed": 3}
    assert found["scoring"] == {"fit": "all", "batch_size": 32}


def test_runtime_parameters_can_still_be_named_in_a_file(tmp_path: Path) -> None:
    local = 'folder: "${runtime_params:where, nowhere}"'
    assert parameters(tmp_path, {"where": "here"}, local)["folder"] == "here"


@pytest.mark.parametrize(
    ("given", "local", "path"),
    [
        ({}, "", "data/bolts/in"),
        ({}, "inference: {source: null}", "data/bolts/in"),
        ({}, "inference: {source: local}", "local"),
        ({"inference": {"source": "given"}}, "inference: {source: local}", "given"),
        ({"inference": {"maps": "none"}}, "inference: {source: local}", "local"),
    ],
)
def test_a_catalog_path_can_be_a_parameter(
    tmp_path: Path, given: dict[str, Any], local: str, path: str
) -> None:
    pattern = "${parameter:inference.source,data/${globals:dataset}/in}"
    files = {
        "base/globals.yml": "dataset: bolts",
        "base/parameters.yml": "inference: {overlays: true}",
        "base/catalog.yml": f"images: {{filepath: '{pattern}'}}",
        "local/parameters.yml": local,
    }
    configuration = loader(tmp_path, files, given)
    assert configuration["catalog"]["images"]["filepath"] == path
    assert configuration["parameters"]["inference"].get("source") in {None, path}


@pytest.mark.parametrize("name", ["2024_05", "01", "on", "true", "1e5", "20240501", "'null'"])
def test_the_name_of_the_data_set_is_as_typed(tmp_path: Path, name: str) -> None:
    files = {
        "base/globals.yml": f"dataset: {name}",
        "base/catalog.yml": "images: {filepath: 'raw/${globals:dataset}'}",
        "base/parameters.yml": "model: ${globals:dataset}",
    }
    configuration = loader(tmp_path, files)
    assert configuration["catalog"]["images"]["filepath"] == f"raw/{name.strip(chr(39))}"
    assert str(configuration["parameters"]["model"]) == name.strip("'")


@pytest.mark.parametrize("source", ["20240501", "01", "true"])
def test_a_catalog_path_is_text_whatever_its_spelling(tmp_path: Path, source: str) -> None:
    files = {
        "base/catalog.yml": "images: {filepath: '${parameter:inference.source,x}'}",
        "base/parameters.yml": f"inference: {{source: {source}}}",
    }
    assert loader(tmp_path, files)["catalog"]["images"]["filepath"] == source


@pytest.mark.parametrize(
    ("files", "key", "message"),
    [
        ({"base/catalog.yml": "a: 'b"}, "catalog", r"catalog.yml, line 1: .*close the quote"),
        ({"local/parameters_x.yml": "a:\n\tb: 1"}, "parameters", r"parameters_x.yml, line 2"),
        (
            {"base/parameters_a.yml": "a: {b: 1}", "base/parameters_b.yml": "a: {b: 2}"},
            "parameters",
            r"parameters_b.yml and .*parameters_a.yml both set 'a.b': keep one",
        ),
        ({"base/globals.yml": "dataset: null"}, "globals", "dataset is None.*dataset: 'null'"),
        ({"base/globals.yml": "dataset: a: b"}, "globals", r"globals.yml, line 1"),
        ({"base/parameters.yml": "a: ${runtime_params:where}"}, "parameters", "give it with"),
    ],
)
def test_a_file_that_cannot_be_used(
    tmp_path: Path, files: dict[str, str], key: str, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        loader(tmp_path, files)[key]
