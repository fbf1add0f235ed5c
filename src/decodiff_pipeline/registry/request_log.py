"""Kept where versions registered earlier import it from; see `serving.request_log`."""

from decodiff_pipeline.serving.request_log import RequestLog

__all__ = ["RequestLog"]
