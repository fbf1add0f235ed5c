"""Earlier name of ``python -m decodiff_pipeline.export.onnx_export``, for existing scripts."""

from decodiff_pipeline.export.onnx_export import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
