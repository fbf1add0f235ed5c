"""Import path of model versions registered earlier; see `serving.served_version`."""

from decodiff_pipeline.serving.served_version import served_version

__all__ = ["served_version"]
