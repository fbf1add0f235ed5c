"""Earlier name of ``python -m decodiff_pipeline.serving.server``, for existing scripts."""

from decodiff_pipeline.serving.server import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
