"""Kept where versions registered earlier import it from; see `serving.served_version`."""

from decodiff_pipeline.serving.served_version import served_version

__all__ = ["served_version"]
