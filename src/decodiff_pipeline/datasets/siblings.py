"""Where catalogs of earlier versions name the dataset; it moved to `datasets.seed_replicates`."""

from decodiff_pipeline.datasets.seed_replicates import SeedReplicatesDataset as SiblingRunsDataset

__all__ = ["SiblingRunsDataset"]
