"""Small data sets in every layout: files in memory, and the rows that the manifest should have."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from tests.data.files import encoded

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIDE, MIN_SIDE = 32, 16

# Of each layout: train, good test images, defects, masks; {c} category, {s} stem.
PLACES = {
    "mvtec": ("{c}/train/good", "{c}/test/good", "{c}/test/scratch",
              "{c}/ground_truth/scratch/{s}_mask.png"),
    "mvtec_loco": ("{c}/train/good", "{c}/test/good", "{c}/test/logical_anomalies",
                   "{c}/ground_truth/logical_anomalies/{s}/000.png"),
    "mvtec_ad2": ("{c}/train/good", "{c}/test_public/good", "{c}/test_public/bad",
                  "{c}/test_public/ground_truth/bad/{s}_mask.png"),
    "folder": ("{c}/good", "{c}/test_good", "{c}/scratch", "{c}/masks/scratch/{s}.png"),
    "btad": ("{c}/train/ok", "{c}/test/ok", "{c}/test/ko", "{c}/ground_truth/ko/{s}.png"),
    "visa": ("{c}/Data/Images/Normal", "{c}/Data/Images/Normal", "{c}/Data/Images/Anomaly",
             "{c}/Data/Masks/Anomaly/{s}.png"),
    "elpv": ("images", "images", "images", ""),
}  # fmt: skip
DEFECTS = {"btad": "ko", "visa": "anomaly", "elpv": "defective", "mvtec_ad2": "bad",
           "mvtec_loco": "logical_anomalies"}  # fmt: skip
KINDS = ("train", "test", "defect")


@dataclass
class Photo:
    """An image and the row that it should have; `mask_path` is empty where it has no mask."""

    category: str
    kind: str
    path: str
    mask_path: str = ""

    @property
    def stem(self) -> str:
        return PurePosixPath(self.path).stem


@dataclass
class DataSet:
    """Files and rows of a data set.

    Attributes:
        layout: Its name.
        photos: The rows that are right.
        files: Content by path.
        links: Target by path.
        touched: Paths that oddities changed; validation may complain of these alone.
        stopped: Those of them that validation has to stop for.
        told: Those that it has to name, in an error or in a warning.
    """

    layout: str
    photos: list[Photo] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    touched: set[str] = field(default_factory=set)
    stopped: set[str] = field(default_factory=set)
    told: set[str] = field(default_factory=set)

    def add(self, category: str, kind: str, stem: str, *, mask: bool) -> None:
        """Adds an image, and its mask."""
        train, test, defect, truth = PLACES[self.layout]
        folder = {"train": train, "test": test, "defect": defect}[kind].format(c=category)
        photo = Photo(category, kind, f"{folder}/{stem}.png")
        self.files[photo.path] = encoded(picture(len(self.photos)))
        if kind == "defect" and mask and truth:
            photo.mask_path = truth.format(c=category, s=stem)
            self.files[photo.mask_path] = encoded(mask_values() * np.uint8(255))
        self.photos.append(photo)

    def move(self, old: str, new: str) -> None:
        """Renames a file."""
        self.files[new] = self.files.pop(old)
        self.touched |= {old, new}

    def write(self, root: Path) -> None:
        """Writes files, links and the table of the layout."""
        for path, content in self.files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(content)
        for path, target in self.links.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).unlink(missing_ok=True)
            (root / path).symlink_to(target)
        if self.layout == "visa":
            (root / "split_csv").mkdir()
            with (root / "split_csv" / "1cls.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["object", "split", "label", "image", "mask"])
                for one in self.photos:
                    split = "train" if one.kind == "train" else "test"
                    label = "anomaly" if one.kind == "defect" else "normal"
                    writer.writerow([one.category, split, label, one.path, one.mask_path])
        if self.layout == "elpv":
            lines = [f"{p.path};{int(p.kind == 'defect')}.0;{p.category}\n" for p in self.photos]
            (root / "labels.csv").write_text("".join(lines), encoding="utf-8")


def picture(seed: int, channels: int = 3) -> NDArray[np.uint8]:
    """Noise, (32, 32, channels), no two alike."""
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, channels), dtype=np.uint8)


def mask_values() -> NDArray[np.uint8]:
    """A defect of 60 pixels: ones on zeros."""
    values = np.zeros((SIDE, SIDE), np.uint8)
    values[8:18, 10:16] = 1
    return values
