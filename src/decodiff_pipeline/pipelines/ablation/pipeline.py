"""The ablation pipeline."""

from __future__ import annotations

from kedro.pipeline import Node, Pipeline

from decodiff_pipeline.pipelines.ablation.nodes import compare_variants, report_ablation


def create_pipeline(**_: object) -> Pipeline:
    """Latent cache and raw images in; metrics of all variants, a table and a plot out."""
    return Pipeline(
        [
            Node(
                compare_variants,
                inputs=[
                    "validated_manifest",
                    "raw_images",
                    "latent_cache",
                    "ablation_store",
                    "params:preprocessing",
                    "params:autoencoder",
                    "params:latent_cache",
                    "params:training",
                    "params:scoring",
                    "params:evaluation",
                    "params:ablation",
                ],
                outputs="ablation",
                name="compare_variants",
            ),
            Node(
                report_ablation,
                inputs="ablation",
                outputs=["ablation_table", "ablation_figure"],
                name="report_ablation",
            ),
        ]
    )
