"""Folders as catalog datasets: a diffusers model, and a folder that is too big to pass by value."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro.io import AbstractDataset, DatasetError

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.deco.loading import load_pretrained
from decodiff_pipeline.errors import ModelError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from kedro_datasets._typing import JSONPreview, TablePreview


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
            raise ModelError(
                f"there is no model in {self._filepath}; run {kedro_run('train')} first"
            )
        return load_pretrained(getattr(import_module(module), name), self._filepath)

    def save(self, data: Any) -> None:
        """Write the model beside the old one, then put it in its place.

        Args:
            data: The model, or the folder itself, whose model stays as it is then.
        """
        if data == self._filepath:
            return
        from decodiff_pipeline.data.atomic import replacing_folder

        with replacing_folder(self._filepath) as temporary:
            data.save_pretrained(str(temporary))

    def preview(self) -> JSONPreview:
        """Configuration of the model, for Kedro-Viz."""
        pipeline = self._filepath / "model_index.json"
        file = pipeline if pipeline.is_file() else self._filepath / "config.json"
        return file.read_text(encoding="utf-8")

    def _exists(self) -> bool:
        return self._filepath.is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "model": self._model}


class HandleDataset(AbstractDataset[Any, Any]):
    """A folder that nodes read and write through a handle.

    Loading builds the handle. Saving stores nothing, since the node already did so through the
    handle; it checks that the node worked in the folder that the catalog names. Two entries may
    name one folder: an input to write through, and the output that later nodes wait for.

    Example:
        .. code-block:: yaml

            latent_cache:
              type: decodiff_pipeline.datasets.HandleDataset
              handle: decodiff_pipeline.data.latent_cache.LatentCache
              filepath: data/04_feature/elpv/latents
    """

    def __init__(
        self, *, handle: str, filepath: str, metadata: dict[str, Any] | None = None
    ) -> None:
        """Name the folder and the class of its handle.

        Args:
            handle: Import path of a class that is built from a ``pathlib.Path`` and keeps it as
                ``path``; or ``pathlib.Path`` itself.
        """
        self._handle = handle
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Any:
        """Build the handle, without looking at the disk."""
        module, name = self._handle.rsplit(".", 1)
        return getattr(import_module(module), name)(self._filepath)

    def save(self, data: Any) -> None:
        """Check that the handle is on this folder.

        Raises:
            DatasetError: It is on another one.
        """
        path = Path(getattr(data, "path", data))
        if path.resolve() != self._filepath.resolve():
            raise DatasetError(f"the node wrote to {path}, but the catalog says {self._filepath}")

    def preview(self, nrows: int = 20) -> TablePreview:
        """Rows of the handle's ``index()``, or files of the folder, for Kedro-Viz."""
        handle = self.load()
        if hasattr(handle, "index"):
            return handle.index().head(nrows).to_dict(orient="split")
        folder = self._filepath
        paths = sorted(folder.iterdir())[:nrows] if folder.is_dir() else [folder]
        rows = [(path.name, None if path.is_dir() else path.stat().st_size) for path in paths]
        return {"columns": ["name", "bytes"], "index": [*range(len(rows))], "data": rows}

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "handle": self._handle}
