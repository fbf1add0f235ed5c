"""Where the autoencoder's training crops come from: indexed, lazy collections of RGB images."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from decodiff_pipeline.data.procedural import procedural_image
from decodiff_pipeline.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from decodiff_pipeline.data.images import ImageFolder


class ImageSource(Protocol):
    """A collection that reads one image at a time, so that it never has to fit into memory."""

    def __len__(self) -> int:
        """How many images there are."""

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Image ``index`` as RGB, ``(H, W, 3)``, uint8."""


class ProceduralImages:
    """Images drawn by :mod:`decodiff_pipeline.data.procedural`; never the same one twice."""

    def __init__(self, seed: int, *, size: int = 256) -> None:
        """Names the collection by ``seed``; ``size`` is the side of its images in pixels."""
        self.seed, self.size = seed, size

    def __len__(self) -> int:
        """All indices a 32-bit integer can hold."""
        return 2**31 - 1

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Draws image ``index``."""
        return procedural_image(self.seed, index, size=self.size)


class ManifestImages:
    """The good images of one split of a manifest, read from disk when asked for."""

    def __init__(
        self, manifest: pd.DataFrame, images: ImageFolder, *, split: str = "train"
    ) -> None:
        """Selects rows; opens no file.

        Args:
            manifest: Columns ``split``, ``label`` and ``path`` (relative to the root) at least.

        Raises:
            DataError: If the split holds no good image.
        """
        chosen = manifest[(manifest["split"] == split) & (manifest["label"] == "good")]
        if chosen.empty:
            raise DataError(
                f"The manifest holds no good image in split {split!r}, so the autoencoder has "
                "nothing to learn from: check the layout and the data root."
            )
        self.paths, self.images = list(chosen["path"]), images

    def __len__(self) -> int:
        """Good images in the split."""
        return len(self.paths)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Reads image ``index``; raises ``ImageError`` where it cannot be read."""
        return np.asarray(self.images.read(self.paths[index]).convert("RGB"))


class PermissiveImage(NamedTuple):
    """One photograph that another package ships, with what its licence asks us to say."""

    name: str
    package: str
    licence: str
    credit: str


# Only images whose own documentation states a licence that allows any use. Left out of
# scikit-image for want of one: coins, ihc, lfw_subset, moon, motorcycle, page, text.
PERMISSIVE_IMAGES = (
    PermissiveImage("astronaut", "scikit-image", "public domain", "NASA, Great Images"),
    PermissiveImage("brick", "scikit-image", "CC0", "CC0Textures, Bricks25"),
    PermissiveImage("camera", "scikit-image", "CC0", "Lav Varshney"),
    PermissiveImage("cell", "scikit-image", "CC0", "Paul Müller et al."),
    PermissiveImage("chelsea", "scikit-image", "CC0", "Stéfan van der Walt"),
    PermissiveImage("clock", "scikit-image", "public domain", "Stéfan van der Walt"),
    PermissiveImage("coffee", "scikit-image", "CC0", "Rachel Michetti"),
    PermissiveImage("grass", "scikit-image", "CC0", "linolafett (DeviantArt)"),
    PermissiveImage("gravel", "scikit-image", "CC0", "CC0Textures, Gravel04"),
    PermissiveImage("hubble_deep_field", "scikit-image", "public domain", "NASA, HubbleSite"),
    PermissiveImage("retina", "scikit-image", "CC0", "Mikael Häggström"),
    PermissiveImage("rocket", "scikit-image", "public domain", "SpaceX"),
    PermissiveImage("china.jpg", "scikit-learn", "CC BY 2.0", "danielbuechele (Flickr)"),
    PermissiveImage("flower.jpg", "scikit-learn", "CC BY 2.0", "vultilion (Flickr)"),
)


class PermissiveImages:
    """The photographs of :data:`PERMISSIVE_IMAGES`, from the installed packages."""

    def __init__(self) -> None:
        """Loads all of them (14 images, 11 MB).

        Raises:
            ConfigurationError: If a package or its image is not installed.
        """
        self.images = [_load(entry) for entry in PERMISSIVE_IMAGES]

    def __len__(self) -> int:
        """How many photographs."""
        return len(self.images)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Photograph ``index``."""
        return self.images[index]


def _load(entry: PermissiveImage) -> NDArray[np.uint8]:
    try:
        if entry.package == "scikit-image":
            from skimage import data

            image = getattr(data, entry.name)()
        else:
            from sklearn.datasets import load_sample_image

            image = load_sample_image(entry.name)
    except (ImportError, AttributeError, OSError) as error:
        raise ConfigurationError(
            f"The source 'permissive' needs the image {entry.name!r} of the package "
            f"{entry.package}: install that package, or leave 'permissive' out of "
            f"autoencoder_training.sources ({error})."
        ) from error
    image = np.asarray(image, np.uint8)
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image[..., :3]  # noqa: PLR2004
