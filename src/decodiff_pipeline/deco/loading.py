"""Loads saved models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline


def load_pretrained(kind: Any, folder: Path, cure: str | None = None) -> Any:
    """Load a diffusers model or pipeline from safetensors.

    Args:
        kind: A class with ``from_pretrained``.
        folder: As ``save_pretrained`` wrote it.
        cure: Advice in the error message; by default to train the model again.

    Raises:
        ModelError: There is no model, or its files are damaged.
    """
    try:
        return kind.from_pretrained(str(folder), use_safetensors=True)
    except MemoryError:
        raise
    except Exception as error:
        cure = cure or f"run {kedro_run('training')} to make it again"
        raise ModelError(f"the model in {folder} cannot be loaded ({error}); {cure}") from error


def load_pipeline(folder: Path, cure: str | None = None) -> DeCoDiffPipeline:
    """Load a saved pipeline on the CPU, without progress bars; see `load_pretrained`."""
    from diffusers.utils.logging import disable_progress_bar

    from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline

    disable_progress_bar()
    pipeline: DeCoDiffPipeline = load_pretrained(DeCoDiffPipeline, folder, cure)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
