"""The evaluation pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kedro.pipeline import Node, Pipeline

from decodiff_pipeline.pipelines.evaluation import nodes

CONFIG, COMPUTE = "params:evaluation", "params:compute"
SOURCE = ("decodiff_model", "validated_manifest", "raw_images")
DATA = ("validated_manifest", "raw_images")
PLOTS = ("image_roc", "image_pr", "pixel_roc", "pixel_pr", "pro", "scores", "confusion")


def create_pipeline(**_: object) -> Pipeline:
    """Model and images in; predictions, thresholds, metrics, figures and a report out."""
    return Pipeline([*_scoring(), *_metrics(), *_reports()])


def _scoring() -> list[Node]:
    review = [*SOURCE, "predictions", CONFIG, COMPUTE]
    baseline = [*SOURCE, "baseline_store", CONFIG, COMPUTE]
    held_out = [*SOURCE, "predictions", "params:monitoring_reference"]
    return [
        _node(nodes.score_images, [*SOURCE, "prediction_store", CONFIG, COMPUTE], "predictions"),
        _node(nodes.score_baseline, baseline, "baseline_predictions"),
        _node(nodes.review_training_images, review, "training_review"),
        _node(nodes.make_monitoring_reference, held_out, "monitoring_reference"),
        _node(nodes.measure_synthetic_localisation, [*SOURCE, CONFIG], "synthetic_metrics"),
    ]


def _metrics() -> list[Node]:
    baseline_inputs = [*DATA, "params:preprocessing", "baseline_predictions", CONFIG]
    baselines = ["baseline_metrics", "baseline_scores"]
    results = ["thresholds", *baselines, "synthetic_metrics", "seed_replicates"]
    parameters = [CONFIG, "params:training", "params:scoring"]
    metrics = ["metrics", "curves", "evaluation_record"]
    return [
        _node(nodes.fit_thresholds, ["predictions", CONFIG], "thresholds"),
        _node(nodes.measure_baselines, baseline_inputs, baselines),
        _node(nodes.compute_metrics, ["predictions", *DATA, *results, *parameters], metrics),
    ]


def _reports() -> list[Node]:
    comparison = ["evaluation_record", "metrics", "earlier_evaluations", CONFIG]
    results = ["metrics", "thresholds", "curves", "comparison", "training_review"]
    report = [*results, "predictions", *DATA, "provenance", CONFIG]
    summary = ["metrics", "comparison", "predictions", "validated_manifest", "provenance"]
    table_inputs = ["evaluation_record", "curves", "thresholds"]
    tables = ["scores_table", *(f"plot_{name}" for name in PLOTS)]
    return [
        _node(nodes.compare_models, comparison, "comparison"),
        _node(nodes.draw_report, report, ["figures", "report"]),
        _node(nodes.summarise, summary, ["evaluation_summary", "metrics_table"]),
        _node(nodes.summarise_run, ["metrics", "provenance"], "evaluation_run"),
        _node(nodes.tabulate, table_inputs, tables),
    ]


def _node(function: Callable[..., Any], inputs: list[str], outputs: str | list[str]) -> Node:
    return Node(function, inputs, outputs, name=function.__name__)
