"""Kept where versions registered earlier import it from; see `serving.scorer`."""

from decodiff_pipeline.serving.scorer import Answer, Scorer, encode_map, load_pipeline, threshold_of

__all__ = ["Answer", "Scorer", "encode_map", "load_pipeline", "threshold_of"]
