"""Import path of model versions registered earlier; see `serving.request_log`."""

from decodiff_pipeline.serving.request_log import RequestLog

__all__ = ["RequestLog"]
