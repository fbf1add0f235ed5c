"""A folder that is too big to pass by value, as a catalog dataset."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from kedro.io import AbstractDataset, DatasetError


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
            filepath: The folder.
            metadata: Anything; Kedro ignores it.
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
            msg = f"the node wrote to {path}, but the catalog says {self._filepath}"
            raise DatasetError(msg)

    def _exists(self) -> bool:
        return self._filepath.exists()

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "handle": self._handle}
