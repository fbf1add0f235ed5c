"""Earlier name of ``python -m decodiff_pipeline.tracking.upload_unsent``, for existing scripts."""

from decodiff_pipeline.tracking.upload_unsent import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
