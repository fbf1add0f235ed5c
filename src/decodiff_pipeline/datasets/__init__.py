"""Catalog datasets of this project.

The package exports the datasets of most pipelines. The others are imported from their modules, so
that a stage in dvc.yaml depends only on the modules that it uses.
"""

from decodiff_pipeline.datasets.folders import DiffusersDataset, HandleDataset

__all__ = ["DiffusersDataset", "HandleDataset"]
