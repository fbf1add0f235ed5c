"""The earlier name of ``python -m decodiff_pipeline.tracking.upload_unsent``, kept for scripts."""

from decodiff_pipeline.tracking.upload_unsent import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
