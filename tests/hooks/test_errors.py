"""What a user sees when something is wrong: one sentence, and an exit code that is not 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.hooks.errors import ErrorHooks

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Kedro = Callable[..., subprocess.CompletedProcess[str]]

PARAMETERS = "conf/base/parameters_training.yml"


def last_lines(result: subprocess.CompletedProcess[str]) -> list[str]:
    assert result.returncode == 1
    assert "Traceback" not in result.stderr + result.stdout
    return [line for line in result.stderr.splitlines() if line.startswith("Error: ")]


@pytest.mark.parametrize(
    ("yaml", "sentences"),
    [
        (
            "training: {learning_rte: 0.1, inner: {colour: red}, sizes: 3, fail: null}",
            [
                "there is no parameter 'training.learning_rte'; did you mean 'learning_rate'?",
                "there is no parameter 'training.inner.colour'; known are: size",
                "training.fail is null; quote the name null",
                "training.sizes is 3; write a list, sizes: [3] (--params '….sizes=[a,b]')",
            ],
        ),
        (
            "training: {learning_rate: fast, fail: [a]}",
            [
                "training.learning_rate is 'fast'; ",
                "write one value, and quote it if it contains brackets",
            ],
        ),
        ("training: 5", ["training: "]),
        ("training: {learning_rate: 20}", ["training.learning_rate is above 10; lower it"]),
    ],
)
def test_a_wrong_parameter_is_named_with_its_file(
    kedro: Kedro, project: Path, yaml: str, sentences: list[str]
) -> None:
    (project / PARAMETERS).write_text(yaml)
    lines = last_lines(kedro("run", "--pipelines", "training"))
    assert len(lines) == len(sentences)
    assert all(line.startswith(f"Error: {PARAMETERS}: ") for line in lines)
    assert all(any(sentence in line for line in lines) for sentence in sentences)


def test_every_wrong_parameter_is_named_where_it_is_set(kedro: Kedro, project: Path) -> None:
    (project / "conf/local/parameters.yml").write_text("training: {inner: {size: big}}")
    result = kedro("run", "--pipelines", "training", "--params", "training.learning_rate=fast")
    lines = sorted(last_lines(result))
    assert lines[0].startswith("Error: --params: training.learning_rate is 'fast'; ")
    assert lines[1].startswith("Error: conf/local/parameters.yml: training.inner.size is 'big'; ")


@pytest.mark.parametrize(
    ("fail", "sentence"),
    [
        ("data", "Error: raw/x.png is empty; copy it again"),
        ("disk", "Error: the disk is full (data/x)"),
    ],
)
def test_an_error_of_a_node(kedro: Kedro, fail: str, sentence: str) -> None:
    result = kedro("run", "--pipelines", "untracked", f"--params=training.fail={fail}")
    (line,) = last_lines(result)
    assert line.startswith(sentence)
    assert (result.stderr + result.stdout).count(line.removeprefix("Error: ")) == 1
    assert "previous command" not in result.stderr + result.stdout  # Kedro's --from-nodes


@pytest.mark.parametrize(
    ("fail", "variables"), [("bug", {}), ("data", {"DECODIFF_TRACEBACK": "1"})]
)
def test_a_bug_keeps_its_traceback_and_an_error_has_one_on_demand(
    kedro: Kedro, fail: str, variables: dict[str, str]
) -> None:
    result = kedro("run", "--pipelines=untracked", f"--params=training.fail={fail}", **variables)
    assert result.returncode == 1
    assert "Traceback" in result.stderr + result.stdout


def test_a_bug_beside_an_error_that_was_handled_keeps_its_traceback() -> None:
    with pytest.raises(KeyError) as caught:
        try:
            raise ModelError("expected, and handled")
        except ModelError:
            {}["a bug"]
    assert ErrorHooks()._explain(caught.value) == []
    wrapped = RuntimeError("of a library")
    wrapped.__cause__ = ModelError("the sentence")
    assert ErrorHooks()._explain(wrapped) == ["the sentence"]


def test_a_missing_input_names_the_pipeline_that_writes_it(kedro: Kedro, project: Path) -> None:
    (line,) = last_lines(kedro("run", "--pipelines", "evaluation"))
    assert "data/metrics.json" in line
    assert "`kedro run --pipelines training` writes it" in line
    assert not (project / "mlflow.db").exists()  # before anything was started

    (project / "conf/tiles").mkdir()
    (line,) = last_lines(kedro("run", "--env", "tiles", "--pipelines", "evaluation"))
    assert "`kedro run --env tiles --pipelines training` writes it" in line


def test_a_broken_yaml_file(kedro: Kedro, project: Path) -> None:
    (project / PARAMETERS).write_text("training: {learning_rate: 1")
    (line,) = last_lines(kedro("run", "--pipelines", "training"))
    assert "parameters_training.yml" in line


def test_an_unknown_environment_and_an_unknown_pipeline(kedro: Kedro) -> None:
    assert "conf/nowhere" in last_lines(kedro("run", "--env", "nowhere"))[0]
    assert "'trainig'" in last_lines(kedro("run", "--pipelines", "trainig"))[0]
