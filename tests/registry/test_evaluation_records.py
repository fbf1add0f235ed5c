"""Records of evaluations are found again by what they were measured by."""

from __future__ import annotations

import pandas as pd
from mlflow import MlflowClient

from decodiff_pipeline.evaluation.record import IDENTITY
from decodiff_pipeline.registry.evaluation_records import find_record, keep_record, log_record


def record(**identity: str) -> pd.DataFrame:
    """One image, measured by anything."""
    table = pd.DataFrame({"path": ["a.png"], "split": ["test"], "score": [0.25]})
    table.attrs[IDENTITY] = {"model": {"scale": 0.18215}, "code": "1", **identity}
    return table


def test_a_record_is_found_by_its_identity_alone(store: str) -> None:
    client = MlflowClient(store)
    run = client.create_run(client.create_experiment("records")).info.run_id
    first, second, unknown = record(), record(code="2"), record(code="3")
    log_record(client, run, first)  # as the run of an evaluation does
    keep_record(client, run, second)
    keep_record(client, run, second)
    keep_record(client, run, pd.DataFrame({"score": [1.0]}))  # by an earlier version of the code
    for wanted in (first, second):
        found = find_record(client, run, wanted.attrs[IDENTITY])
        assert found is not None
        pd.testing.assert_frame_equal(found, wanted)
        assert found.attrs == wanted.attrs
    assert find_record(client, run, unknown.attrs[IDENTITY]) is None
    assert find_record(client, "no-such-run", first.attrs[IDENTITY]) is None
