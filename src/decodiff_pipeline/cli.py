"""The project's command line: Kedro's, whose `run` takes parameters as they were typed."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run
from omegaconf import OmegaConf

from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.hooks.errors import TRACEBACK_VARIABLE
from decodiff_pipeline.yaml_reader import parse_parameters, read_mapping


@click.group(name="decodiff-pipeline")
def cli() -> None:
    """Commands of this project; Kedro finds the group by its name."""


def _parameters(context: click.Context, option: click.Parameter, value: Any) -> Any:
    """``--params``, or what a file given by ``--config`` says in its place."""
    if isinstance(value, dict):
        return value
    tree = OmegaConf.create({})
    try:
        for name, one in parse_parameters(value).items():
            OmegaConf.update(tree, name, one)
    except ConfigurationError as error:
        raise click.UsageError(str(error), context) from error
    return OmegaConf.to_container(tree)


def _config(context: click.Context, option: click.Parameter, value: Any) -> Any:
    """``--config``: as Kedro reads it, but for the parameters."""
    try:
        content = read_mapping(Path(value)) if value else {}
    except ConfigurationError as error:
        raise click.UsageError(str(error), context) from error
    result = _option("config").callback(context, option, value)  # type: ignore[misc]
    given = content.get(str(context.info_name)) or {}
    if context.default_map is not None and "params" in given:
        context.default_map["params"] = given["params"]
    return result


def _run(**options: Any) -> Any:
    """Run a pipeline; what is wrong with the configuration is one sentence."""
    try:
        return kedro_run.callback(**options)  # type: ignore[misc]
    except ConfigurationError as error:  # of a file that is read before Kedro has any hook
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        raise click.ClickException(str(error)) from error


def _option(name: str) -> click.Parameter:
    return next(option for option in kedro_run.params if option.name == name)


def _own(option: click.Parameter) -> click.Parameter:
    callback = {"params": _parameters, "config": _config}.get(str(option.name))
    if callback is not None:
        option = copy.copy(option)
        option.callback = callback
    return option


run = copy.copy(kedro_run)
run.callback = _run
run.params = [_own(option) for option in kedro_run.params]
cli.add_command(run)
