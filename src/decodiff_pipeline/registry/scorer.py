"""Kept where versions registered earlier import it from; see `serving.scorer`."""

from decodiff_pipeline.serving.scorer import Scorer

__all__ = ["Scorer"]
