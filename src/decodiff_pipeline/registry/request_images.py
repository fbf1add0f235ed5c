"""Import path of model versions registered earlier; see `serving.request_images`."""

from decodiff_pipeline.serving.request_images import image_bytes

__all__ = ["image_bytes"]
