"""Import path in catalogs of earlier versions; the dataset is in `datasets.earlier_evaluation`."""

from decodiff_pipeline.datasets.earlier_evaluation import (
    EarlierEvaluationDataset as ReferenceEvaluationDataset,
)

__all__ = ["ReferenceEvaluationDataset"]
