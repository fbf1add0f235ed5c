"""Checks before a run for inputs and parameters that are used late in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kedro.framework.hooks import hook_impl

from decodiff_pipeline.compute.config import ComputeConfig
from decodiff_pipeline.data.regions import check_masks, load_regions
from decodiff_pipeline.deco.config import require_places
from decodiff_pipeline.deco.device import prefer_compiled, prefer_device
from decodiff_pipeline.deco.weights import locate

if TYPE_CHECKING:
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline

    from decodiff_pipeline.data.regions import RegionConfig
    from decodiff_pipeline.deco.config import PreprocessConfig

MANIFEST = "validated_manifest"


class PreflightHooks:
    """Stop within seconds if weights or a revision are missing or parameters contradict."""

    _regions: tuple[dict[str, RegionConfig], PreprocessConfig] | None = None

    @hook_impl
    def after_node_run(self, outputs: dict[str, Any]) -> None:
        """Check the regions as soon as the manifest is available.

        Raises:
            ConfigurationError: A region does not match the images of its category.
        """
        if MANIFEST in outputs and self._regions is not None:
            regions, geometry = self._regions
            load_regions(regions, outputs[MANIFEST], geometry)

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Set the device of the run, and check weights, regions, revisions and parameters.

        The autoencoder's weights are downloaded if they are on the Hugging Face Hub.

        Raises:
            ConfigurationError: Weights or a revision are missing, or scoring and preprocessing or
                a region and the images do not match.
            ModelError: The initial weights of the training are missing or do not match.
        """
        inputs = pipeline.inputs()
        if "params:compute" in catalog:
            compute = ComputeConfig.model_validate(catalog.load("params:compute"))
            prefer_device(compute.device)
            prefer_compiled(compute.compile)
        self._regions = None
        if {"params:scoring", "params:preprocessing"} <= inputs:
            scoring, geometry = catalog.load("params:scoring"), catalog.load("params:preprocessing")
            require_places(scoring.discrepancy, geometry)
            if scoring.regions:
                self._regions = scoring.regions, geometry
                check_masks(scoring.regions)
                if MANIFEST in inputs:
                    load_regions(scoring.regions, catalog.load(MANIFEST), geometry)
        if "params:autoencoder" in inputs:
            locate(catalog.load("params:autoencoder"))
        if {"params:evaluation", "earlier_evaluations"} <= inputs:
            catalog.load("earlier_evaluations").check(
                catalog.load("params:evaluation").compare_with
            )
        if {"params:training", "champion_model", "params:autoencoder"} <= inputs:
            training = catalog.load("params:training")
            if training.init_from is not None:
                from decodiff_pipeline.training.initial_weights import check_initial_weights

                check_initial_weights(
                    training, catalog.load("champion_model"), catalog.load("params:autoencoder")
                )
