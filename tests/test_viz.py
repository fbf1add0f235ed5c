"""Kedro-Viz shows every pipeline, with data in layers and previews."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import psutil
import pytest
from tests.servers import free_port

from decodiff_pipeline import viz
from decodiff_pipeline.kedro_project import load_project
from decodiff_pipeline.new_project import make_project

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
LAYERS = (
    "raw", "intermediate", "primary", "feature", "models", "model output", "metrics", "reporting",
    "versions",
)  # fmt: skip


def layer(config: dict[str, Any]) -> str | None:
    return ((config.get("metadata") or {}).get("kedro-viz") or {}).get("layer")


@pytest.mark.parametrize("environment", [None, "embedded"])
def test_every_file_has_a_layer_and_no_node_leads_back(environment: str | None) -> None:
    """With a cycle Kedro-Viz shows no layers at all."""
    project = load_project(ROOT, environment)
    layers = {name: layer(config) for name, config in project.catalog.items()}
    kept = {n for n, config in project.catalog.items() if {"filepath", "path"} & set(config)}
    assert not {name for name in kept if layers[name] not in LAYERS}
    order = {name: LAYERS.index(found) for name, found in layers.items() if found}
    for node in {node for pipeline in project.pipelines.values() for node in pipeline.nodes}:
        before = max((order[name] for name in node.inputs if name in order), default=0)
        assert all(order[name] >= before for name in node.outputs if name in order), node


@pytest.fixture
def page(tmp_path: Path) -> Iterator[tuple[psutil.Popen, str]]:
    """The server's process and its address, in a new project of few files."""
    if find_spec("kedro_viz") is None:
        pytest.skip("Kedro-Viz is not installed: make .venv/.viz")
    make_project(tmp_path / "my-line")
    data = tmp_path / "my-line" / "data"
    plots, table = data / "08_reporting/my-line/plots", data / "03_primary/my-line"
    plots.mkdir(parents=True)
    (plots / "image_roc.json").write_text(json.dumps([{"category": "m6", "fpr": 0.0, "tpr": 0.5}]))
    table.mkdir(parents=True)
    pd.DataFrame({"path": ["a.png"] * 3}).to_parquet(table / "manifest.parquet")
    command = [sys.executable, "-m", "decodiff_pipeline.viz", "--port", str(free_port())]
    process = psutil.Popen(
        command, cwd=tmp_path / "my-line", env=os.environ | {"BROWSER": "true"},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process, process.stdout.readline().split()[0]
    finally:
        for left in [*process.children(recursive=True), process] if process.is_running() else []:
            left.kill()


@pytest.mark.slow
def test_a_new_project_is_shown_by_one_process(page: tuple[psutil.Popen, str]) -> None:
    process, address = page

    def answer(path: str) -> Any:
        connection = HTTPConnection(address.removeprefix("http://"), timeout=60)
        connection.request("GET", f"/api/{path}")
        return json.load(connection.getresponse())

    pipelines = load_project(ROOT).pipelines
    assert {one["id"] for one in answer("main")["pipelines"]} == set(pipelines)
    shown = {}
    for name, pipeline in pipelines.items():
        found = answer(f"pipelines/{name}")
        tasks = {one["name"] for one in found["nodes"] if one["type"] == "task"}
        assert tasks == {node.name for node in pipeline.nodes}
        assert set(found["layers"]) == set(LAYERS)
        shown |= {one["name"]: one["id"] for one in found["nodes"]}
    table = answer(f"nodes/{shown['validated_manifest']}")
    assert table["preview"]["data"] == [["a.png"]] * 3
    plot = answer(f"nodes/{shown['plot_image_roc']}")
    assert (plot["preview_type"], plot["preview"]["data"][0]["y"]) == ("PlotlyPreview", [0.5])
    assert process.children(recursive=True) == []
    process.terminate()
    process.wait(20)
    with socket.socket() as probe, pytest.raises(OSError):
        probe.connect(("127.0.0.1", int(address.rpartition(":")[2])))


def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(SystemExit, match=f"port {port} is taken"):
            viz.main(["--port", str(port)])
