"""Import path in catalogs of earlier versions; the dataset is in `datasets.seed_replicates`."""

from decodiff_pipeline.datasets.seed_replicates import SeedReplicatesDataset as SiblingRunsDataset

__all__ = ["SiblingRunsDataset"]
