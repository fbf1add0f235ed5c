"""Import path of model versions registered earlier; see `serving.scorer`."""

from decodiff_pipeline.serving.scorer import Scorer

__all__ = ["Scorer"]
