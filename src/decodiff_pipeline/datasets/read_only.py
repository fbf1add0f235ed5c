"""Base class of the catalog datasets that nodes only load."""

from __future__ import annotations

from typing import NoReturn, TypeVar

from kedro.io import AbstractDataset, DatasetError

Loaded = TypeVar("Loaded")


class ReadOnlyDataset(AbstractDataset[NoReturn, Loaded]):
    """A dataset that cannot be saved.

    Attributes:
        read_only: Error message of :meth:`save`: where the data come from.
    """

    read_only: str

    def save(self, data: NoReturn) -> NoReturn:
        """Not supported.

        Raises:
            DatasetError: Always.
        """
        raise DatasetError(self.read_only)
