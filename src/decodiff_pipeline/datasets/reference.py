"""Where earlier catalogs name the dataset; it moved to `datasets.earlier_evaluation`."""

from decodiff_pipeline.datasets.earlier_evaluation import (
    EarlierEvaluationDataset as ReferenceEvaluationDataset,
)

__all__ = ["ReferenceEvaluationDataset"]
