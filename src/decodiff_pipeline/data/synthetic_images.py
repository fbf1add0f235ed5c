"""Which good images get which synthetic defects."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

from decodiff_pipeline.data.bit_depth import pixel_identities
from decodiff_pipeline.data.synthetic_defects import VERSION, synthetic_defect
from decodiff_pipeline.data.transforms import plain_square

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.config import PreprocessConfig


class SyntheticImage(NamedTuple):
    """A good image that is given a synthetic defect."""

    path: str
    sha256: str  # of its bytes
    category: str
    number: int  # which of its defects
    source_path: str  # another good image of the split, of any category, to take textures from
    source_sha256: str  # of that one's bytes

    @property
    def identity(self) -> str:
        """Decides the image with its defect, up to resize and crop; a SHA-256."""
        parts = ("synthetic", VERSION, self.sha256, self.number, self.source_sha256)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def draw(
        self, images: ImageFolder, geometry: PreprocessConfig
    ) -> tuple[np.ndarray, np.ndarray]:
        """The image with its defect, uint8 (S, S, 3), and the mask, bool (S, S).

        Raises:
            ImageError: One of the two images cannot be read.
        """
        # Of a tiled image the tile that stands for it among the good val images.
        square = plain_square(images.read(self.path), geometry, self.sha256)
        source = plain_square(images.read(self.source_path), geometry, self.source_sha256)
        return synthetic_defect(square, self.sha256, self.number, source)


def synthetic_images(
    manifest: pd.DataFrame, per_image: int, split: str = "val"
) -> list[SyntheticImage]:
    """Give every good image of a split some defects, in the order of the manifest.

    Where textures come from follows from the images' bytes, and one image more or less changes
    it for few others.
    """
    good = manifest[(manifest["split"] == split) & (manifest["label"] == "good")]
    good = good.assign(sha256=pixel_identities(good))
    ring = sorted(zip(good["sha256"], good["path"], strict=True))
    digests = [sha256 for sha256, _ in ring]
    wanted = []
    for path, sha256, category in zip(good["path"], good["sha256"], good["category"], strict=True):
        for number in range(per_image):
            place = hashlib.sha256(f"{sha256}:{number}".encode()).hexdigest()
            start = bisect_right(digests, place)
            following = [ring[(start + step) % len(ring)] for step in (0, 1)]
            # The next image on the ring may be this one; the one after is not, unless it is alone.
            source_sha256, source = following[following[0][0] == sha256]
            wanted.append(SyntheticImage(path, sha256, category, number, source, source_sha256))
    return wanted
