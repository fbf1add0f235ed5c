"""A diffusers model as a catalog dataset."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.deco.loading import load_pretrained
from decodiff_pipeline.errors import ModelError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class DiffusersDataset(AbstractDataset[Any, Any]):
    """A diffusers model or pipeline, saved with ``save_pretrained`` in safetensors.

    Saving replaces the folder as a whole: a run that is killed meanwhile leaves the old one.
    """

    def __init__(
        self, *, model: str, filepath: str, metadata: dict[str, Any] | None = None
    ) -> None:
        """Name the folder and the class.

        Args:
            model: Import path of a class with ``from_pretrained``.
            filepath: The folder.
            metadata: Anything; Kedro ignores it.
        """
        self._model = model
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> DiffusionPipeline:
        """Load the model.

        Raises:
            ModelError: There is none, or its files are damaged.
        """
        module, name = self._model.rsplit(".", 1)
        if not self._filepath.is_dir():
            msg = f"there is no model in {self._filepath}; run {kedro_run('train')} first"
            raise ModelError(msg)
        return load_pretrained(getattr(import_module(module), name), self._filepath)

    def save(self, data: Any) -> None:
        """Write the model beside the old one, then put it in its place."""
        from decodiff_pipeline.data.atomic import replacing_folder

        with replacing_folder(self._filepath) as temporary:
            data.save_pretrained(str(temporary))

    def _exists(self) -> bool:
        return self._filepath.is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "model": self._model}
