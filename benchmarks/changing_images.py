"""Images of a production line over a year: added, removed, spoilt, repaired, relabelled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import random
    from pathlib import Path

FEWEST = 12  # good training images that stay


class ChangingImages:
    """A data set in MVTec's layout that people work on.

    Args:
        folder: The raw data set; a folder a category.
        draw: What it is decided by.
    """

    def __init__(self, folder: Path, draw: random.Random) -> None:
        self.folder, self.draw, self.made = folder, draw, 0

    def change(self, event: str) -> str | None:
        """Let something happen to a category.

        Returns:
            Its name; `None` where nothing has changed.
        """
        category = self.draw.choice(sorted(self.folder.iterdir()))
        good = sorted((category / "train" / "good").glob("*.png"))
        spoilt = [path for path in good if path.name.startswith("spoilt_")]
        if event == "add":
            self.add(good)
        elif event == "remove" and len(good) >= FEWEST:
            self.remove(self.draw.sample(good, 2))
        elif event == "spoil":
            self.spoil(self.draw.sample(good, 5))
        elif event == "repair" and spoilt and len(good) - len(spoilt) >= FEWEST:
            self.remove(spoilt)
        elif event == "relabel":
            self.relabel(category)
        else:
            return None
        return category.name

    def add(self, good: list[Path]) -> None:
        """Three parts are photographed again."""
        for path in self.draw.sample(good, 3):
            self.made += 1
            pixels = np.asarray(Image.open(path), dtype=np.int16)
            noise = np.random.default_rng(self.made).integers(-6, 7, pixels.shape)
            noisy = np.clip(pixels + noise, 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(path.with_name(f"new{self.made:03}.png"))

    def remove(self, paths: list[Path]) -> None:
        """Images go."""
        for path in paths:
            path.unlink()

    def spoil(self, paths: list[Path]) -> None:
        """Defects on images that are called good."""
        for path in paths:
            pixels = np.array(Image.open(path))
            top, left = (self.draw.randrange(4, pixels.shape[0] - 20) for _ in range(2))
            square = np.s_[top : top + 14, left : left + 14]
            pixels[square] = 255 - pixels[square]
            self.made += 1
            Image.fromarray(pixels).save(path.with_name(f"spoilt_{self.made:03}.png"))
            path.unlink()

    def relabel(self, category: Path) -> None:
        """A good test image was defective after all, or the other way round."""
        self.made += 1
        defective = sorted((category / "test" / "scratch").glob("moved*.png"))
        good = sorted((category / "test" / "good").glob("*.png"))
        masks = category / "ground_truth" / "scratch"
        if (defective and self.draw.random() < 0.5) or len(good) < 3:  # there were four
            path = defective[0]
            (masks / f"{path.stem}_mask.png").unlink()
            path.rename(category / "test" / "good" / f"back{self.made:03}.png")
            return
        path = self.draw.choice(good)
        mask = Image.new("L", Image.open(path).size)
        mask.paste(255, (8, 8, 24, 24))
        mask.save(masks / f"moved{self.made:03}_mask.png")
        path.rename(category / "test" / "scratch" / f"moved{self.made:03}.png")
