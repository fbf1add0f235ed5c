"""Prometheus metrics and the v2 inference protocol of the server's application."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """The application of a model with random weights that knows mono."""
    import mlflow
    from benchmarks.fuzz_server import save_tiny_model

    from decodiff_pipeline.serving.server import make_app

    folder = save_tiny_model(tmp_path_factory.mktemp("served"))
    with TestClient(make_app(mlflow.pyfunc.load_model(str(folder)))) as client:
        yield client


def tensor(name: str, *texts: str, **others: Any) -> dict[str, Any]:
    return {"name": name, "shape": [len(texts)], "datatype": "BYTES", "data": list(texts), **others}


def samples(client: TestClient) -> dict[tuple[str, ...], float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {
        (one.name, *one.labels.values()): one.value for family in families for one in family.samples
    }


def test_both_protocols_answer_the_same_and_are_counted(client: TestClient, png: bytes) -> None:
    text = base64.b64encode(png).decode()
    before = samples(client)
    rows = [{"image": text, "category": "mono"}] * 2
    expected = client.post("/invocations", json={"dataframe_records": rows}).json()["predictions"]
    body = {"id": "7", "inputs": [tensor("image", text, text), tensor("category", "mono", "mono")]}
    answer = client.post("/v2/models/decodiff/infer", json=body).json()
    assert (answer["model_name"], answer["id"]) == ("decodiff", "7")
    described = client.get("/v2/models/decodiff").json()
    assert [one["name"] for one in described["outputs"]] == list(expected[0])
    for output in answer["outputs"]:
        assert output["shape"] == [2]
        assert output["datatype"] == ("FP64" if output["name"] == "score" else output["datatype"])
        if output["name"] != "request_id":
            assert output["data"] == [row[output["name"]] for row in expected]
    body = {
        "inputs": [tensor("image", text), tensor("category", "mono")],
        "outputs": [{"name": "score"}, {"name": "decision"}],
        "parameters": {"threshold": 0.0},
    }
    score, decision = client.post("/v2/models/decodiff/infer", json=body).json()["outputs"]
    assert score["data"] == [pytest.approx(expected[0]["score"], abs=1e-6)]
    assert decision["data"] == ["defective"]

    found = {name: value - before.get(name, 0) for name, value in samples(client).items()}
    assert found["decodiff_requests_total", "invocations", "200"] == 1
    assert found["decodiff_requests_total", "infer", "200"] == 2
    assert found["decodiff_request_seconds_count", "infer"] == 2
    assert found["decodiff_score_count", "mono"] == 5
    assert found["decodiff_score_sum", "mono"] == pytest.approx(5 * expected[0]["score"])
    assert found["decodiff_decisions_total", "mono", "none"] == 4
    assert found["decodiff_decisions_total", "mono", "defective"] == 1
    (version,) = [name for name in found if name[0] == "decodiff_model_info"]
    assert expected[0]["model_sha256"] in version


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("{", "the request is not JSON"),
        ([], "does not follow the v2 protocol"),
        ({"inputs": {}}, "send an image"),
        ({"inputs": "x"}, "does not follow"),
        ({"inputs": ["x"]}, "no input None"),
        ({"inputs": [{"name": "image", "parameters": {"binary_data_size": 4}}]}, "binary tensors"),
        ({"inputs": [tensor("image", "AAAA", shape=[2])]}, "1 texts are of datatype BYTES"),
        ({"inputs": [tensor("image", "AAAA", datatype="UINT8")]}, "of datatype UINT8"),
        ({"inputs": [tensor("image", data=[1])]}, "not a list of texts"),
        (
            {"inputs": [tensor("image", "AAAA"), tensor("category", "a", "b")]},
            "for each of them",
        ),
        ({"inputs": [tensor("image", "AAAA"), tensor("category", "wood")]}, "category 'wood'"),
        ({"inputs": [tensor("image", "A*")]}, "image 0 is not base64"),
        ({"inputs": [tensor("image", "A")], "outputs": [{"name": "x"}]}, "there is no output 'x'"),
        ({"inputs": [tensor("image", "A")], "parameters": {"map_bits": "x"}}, "map_bits"),
    ],
)
def test_what_cannot_be_answered_is_a_400_with_a_sentence(
    client: TestClient, body: Any, sentence: str
) -> None:
    data = body if isinstance(body, str) else json.dumps(body)
    answer = client.post(
        "/v2/models/decodiff/infer", content=data, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400, answer.text
    assert sentence in answer.json()["error"]


def test_the_manifest_of_kserve_asks_what_the_server_answers(client: TestClient) -> None:
    manifest = yaml.safe_load((ROOT / "deploy" / "kserve.yaml").read_text("utf-8"))
    (container,) = manifest["spec"]["predictor"]["containers"]
    (port,) = container["ports"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["port"] == port["containerPort"]
        assert client.get(asked["path"]).status_code == 200
    assert client.get(manifest["metadata"]["annotations"]["prometheus.kserve.io/path"]).is_success
