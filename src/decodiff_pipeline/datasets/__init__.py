"""Catalog datasets that Kedro does not have.

Those that only some pipelines need are imported from their modules, so that the others' stages in
dvc.yaml do not depend on what they import.
"""

from decodiff_pipeline.datasets.folders import DiffusersDataset, HandleDataset

__all__ = ["DiffusersDataset", "HandleDataset"]
