"""Where registered models import `scores_sha256` from; it moved to `monitoring.reference`."""

from decodiff_pipeline.monitoring.reference import scores_sha256

__all__ = ["scores_sha256"]
