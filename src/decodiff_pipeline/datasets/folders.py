"""Catalog datasets of folders: a diffusers model, and a folder that nodes use through a handle."""

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
    """A diffusers model or pipeline, saved with ``save_pretrained`` as safetensors.

    Saving replaces the folder atomically: if the run is killed, the old folder stays.
    """

    def __init__(
        self, *, model: str, filepath: str, metadata: dict[str, Any] | None = None
    ) -> None:
        """Set the folder and the class.

        Args:
            model: Import path of a class with ``from_pretrained``.
            filepath: Folder of the model.
        """
        self._model = model
        self._filepath = Path(filepath)
        self._loaded: Any = None
        self.metadata = metadata

    def load(self) -> DiffusionPipeline:
        """Load the model, once for all nodes of a run.

        Raises:
            ModelError: The folder does not exist, or its files are damaged.
        """
        if self._loaded is None:
            self._loaded = self._load_from_folder()
        return self._loaded

    def _load_from_folder(self) -> DiffusionPipeline:
        module, name = self._model.rsplit(".", 1)
        if not self._filepath.is_dir():
            raise ModelError(
                f"there is no model in {self._filepath}; run {kedro_run('train')} first"
            )
        return load_pretrained(getattr(import_module(module), name), self._filepath)

    def save(self, data: Any) -> None:
        """Replace the folder by the model.

        Args:
            data: The model, or the path of this folder to keep the saved model.
        """
        self._release()
        if data == self._filepath:
            return
        from decodiff_pipeline.data.atomic import replacing_folder

        with replacing_folder(self._filepath) as temporary:
            data.save_pretrained(str(temporary))

    def preview(self) -> JSONPreview:
        """The model's configuration file, for Kedro-Viz."""
        pipeline = self._filepath / "model_index.json"
        file = pipeline if pipeline.is_file() else self._filepath / "config.json"
        return file.read_text(encoding="utf-8")

    def _release(self) -> None:
        self._loaded = None

    def _exists(self) -> bool:
        return self._filepath.is_dir()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "model": self._model}


class HandleDataset(AbstractDataset[Any, Any]):
    """A folder that nodes read and write through a handle, because it is too large for memory.

    Loading creates the handle. The node writes through the handle, so saving only checks that the
    node used the folder of the catalog. Two catalog entries may share a folder: one is the input
    through which a node writes, the other the output that later nodes depend on.

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
        """Set the folder and the class of its handle.

        Args:
            handle: Import path of a class whose constructor takes a ``pathlib.Path`` and which has
                the attribute ``path``; or ``pathlib.Path`` itself.
            filepath: The folder.
        """
        self._handle = handle
        self._filepath = Path(filepath)
        self.metadata = metadata

    def load(self) -> Any:
        """Create the handle, without access to the disk."""
        module, name = self._handle.rsplit(".", 1)
        return getattr(import_module(module), name)(self._filepath)

    def save(self, data: Any) -> None:
        """Check that the handle uses this folder.

        Raises:
            DatasetError: The handle uses another folder.
        """
        path = Path(getattr(data, "path", data))
        if path.resolve() != self._filepath.resolve():
            raise DatasetError(f"the node wrote to {path}, but the catalog says {self._filepath}")

    def preview(self, nrows: int = 20) -> TablePreview:
        """Rows of the handle's ``index()``, else the files of the folder, for Kedro-Viz."""
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
