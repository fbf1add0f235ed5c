"""What a run will need late is looked for before it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kedro.framework.hooks import hook_impl

from decodiff_pipeline.deco.weights import AutoencoderConfig, locate

if TYPE_CHECKING:
    from kedro.io import DataCatalog
    from kedro.pipeline import Pipeline

AUTOENCODER = "params:autoencoder"


class PreflightHooks:
    """Stop within seconds where the autoencoder's weights cannot be had."""

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Locate the weights; they are downloaded here if the hub has to be asked.

        Raises:
            ConfigurationError: They are not there.
        """
        if AUTOENCODER in pipeline.inputs():
            config = catalog.load(AUTOENCODER)
            if isinstance(config, AutoencoderConfig):
                locate(config)
