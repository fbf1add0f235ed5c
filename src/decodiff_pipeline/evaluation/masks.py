"""Ground truth at the size of the maps or of the images, read when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from decodiff_pipeline.deco.preprocess import resize_mask
from decodiff_pipeline.evaluation.native import native_mask
from decodiff_pipeline.evaluation.released_protocol import released_mask

if TYPE_CHECKING:
    import numpy as np

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.evaluation.config import Protocol, Resolution


def with_ground_truth(rows: pd.DataFrame) -> pd.DataFrame:
    """The images of which every pixel's truth is known: good ones, and defects with a mask."""
    good = rows["label"] == "good"
    masked = (rows["label"] == "defective") & rows["mask_path"].notna()
    return rows[good | masked]


def mask_by(protocol: Protocol, mask: np.ndarray, geometry: PreprocessConfig) -> np.ndarray:
    """Bring a mask to the size of the maps as a protocol does.

    Args:
        protocol: ``strict``: `deco.preprocess.resize_mask`; ``released``:
            `released_protocol.released_mask`.
        mask: bool (H, W), True on the defect.
        geometry: How images were fitted into squares.

    Returns:
        bool (h, w), as the map.
    """
    return (resize_mask if protocol == "strict" else released_mask)(mask, geometry)


class GroundTruth:
    """Masks of some images, read one at a time, never kept.

    Args:
        rows: Manifest rows, as `with_ground_truth` returns them.
        images: Where the masks are.
        geometry: How images were fitted into squares.
        protocol: How masks are resized; see `mask_by`.
        resolution: ``native`` for masks as they are, but for what the model did not see.
    """

    def __init__(
        self,
        rows: pd.DataFrame,
        images: ImageFolder,
        geometry: PreprocessConfig,
        protocol: Protocol = "strict",
        resolution: Resolution = "model",
    ) -> None:
        paths = rows["mask_path"].where(rows["label"] == "defective")
        self._paths = [None if pd.isna(path) else str(path) for path in paths]
        self._images = images
        self._geometry = geometry
        self._protocol = protocol
        self._native = resolution == "native"

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> np.ndarray | None:
        """The mask of an image as bool (h, w), ``None`` for a good one."""
        path = self._paths[index]
        if path is None:
            return None
        mask = self._images.read_mask(path)
        if self._native:
            return native_mask(mask, self._geometry)
        return mask_by(self._protocol, mask, self._geometry)
