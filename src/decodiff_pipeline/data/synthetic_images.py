"""Assignment of synthetic defects to the good images of a split."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from decodiff_pipeline.data.bit_depth import pixel_identities
from decodiff_pipeline.data.synthetic_defects import HARDER, VERSION, synthetic_defect
from decodiff_pipeline.data.transforms import plain_square, square_inside

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from decodiff_pipeline.data.images import ImageFolder
    from decodiff_pipeline.deco.config import PreprocessConfig
    from decodiff_pipeline.deco.regions import Region


class SyntheticImage(NamedTuple):
    """A good image and the synthetic defect that is drawn into it."""

    path: str
    sha256: str  # of the file
    category: str
    number: int  # number of the defect of this image
    # Another good image of the split, the source of textures; of any category, but for half of the
    # `HARDER` defects of the same category.
    source_path: str
    source_sha256: str  # of the file
    version: int = VERSION  # `VERSION` or `HARDER`

    @property
    def identity(self) -> str:
        """SHA-256 that identifies the image with its defect, before resizing and cropping."""
        parts = ("synthetic", self.version, self.sha256, self.number, self.source_sha256)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def draw(
        self, images: ImageFolder, geometry: PreprocessConfig, region: Region | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw the defect inside the region: image, uint8 (S, S, 3), and mask, bool (S, S).

        Raises:
            ImageError: The image or the source of textures cannot be read.
        """
        # For a tiled image, the same tile as among the good val images.
        image = images.read(self.path)
        square, inside = square_inside(image, geometry, self.sha256, region)
        source = plain_square(images.read(self.source_path), geometry, self.source_sha256)
        return synthetic_defect(square, self.sha256, self.number, source, self.version, inside)


def synthetic_images(
    manifest: pd.DataFrame, per_image: int, split: str = "val", version: int = VERSION
) -> list[SyntheticImage]:
    """Assign ``per_image`` defects to every good image of a split, in the order of the manifest.

    The source of textures is chosen by consistent hashing of the images' digests: adding or
    removing an image changes the source of few others.
    """
    good = manifest[(manifest["split"] == split) & (manifest["label"] == "good")]
    good = good.assign(sha256=pixel_identities(good))
    every = _ring(good)
    rings = {category: _ring(rows) for category, rows in good.groupby("category")}
    wanted = []
    for path, sha256, category in zip(good["path"], good["sha256"], good["category"], strict=True):
        for number in range(per_image):
            place = hashlib.sha256(f"{sha256}:{number}".encode()).hexdigest()
            alike = version == HARDER and int(place[-1], 16) % 2 and len(rings[category]) > 1
            ring = rings[category] if alike else every
            start = bisect_right(ring, place, key=itemgetter(0))
            following = [ring[(start + step) % len(ring)] for step in (0, 1)]
            # The next image on the ring may be this one; then take the one after it.
            source_sha256, source = following[following[0][0] == sha256]
            wanted.append(
                SyntheticImage(path, sha256, category, number, source, source_sha256, version)
            )
    return wanted


def _ring(rows: pd.DataFrame) -> list[tuple[str, str]]:
    return sorted(zip(rows["sha256"], rows["path"], strict=True))
