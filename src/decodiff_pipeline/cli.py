"""The project's Kedro command line: `kedro run` with this project's parser of `--params`."""

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
    """Commands of this project; Kedro looks the group up by the name `cli`."""


def _parameters(context: click.Context, option: click.Parameter, value: Any) -> Any:
    """Parse ``--params``; a dictionary comes from ``params`` in the file of ``--config``."""
    if isinstance(value, dict):
        return value
    tree = OmegaConf.create({})
    try:
        for name, parameter in parse_parameters(value).items():
            OmegaConf.update(tree, name, parameter)
    except ConfigurationError as error:
        raise click.UsageError(str(error), context) from error
    return OmegaConf.to_container(tree)


def _config(context: click.Context, option: click.Parameter, value: Any) -> Any:
    """Read ``--config`` as Kedro does, except for the parameters in it."""
    try:
        content = read_mapping(Path(value)) if value else {}
    except ConfigurationError as error:
        raise click.UsageError(str(error), context) from error
    kedro_option = next(option for option in kedro_run.params if option.name == "config")
    result = kedro_option.callback(context, option, value)  # type: ignore[misc]
    options = content.get(str(context.info_name)) or {}
    if context.default_map is not None and "params" in options:
        context.default_map["params"] = options["params"]
    return result


def _run(**options: Any) -> Any:
    """Run a pipeline; print a configuration error as one sentence."""
    try:
        return kedro_run.callback(**options)  # type: ignore[misc]
    except ConfigurationError as error:  # raised before Kedro registers hooks
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        raise click.ClickException(str(error)) from error


def _with_callback(option: click.Parameter) -> click.Parameter:
    callback = {"params": _parameters, "config": _config}.get(str(option.name))
    if callback is not None:
        option = copy.copy(option)
        option.callback = callback
    return option


run = copy.copy(kedro_run)
run.callback = _run
run.params = [_with_callback(option) for option in kedro_run.params]
cli.add_command(run)
