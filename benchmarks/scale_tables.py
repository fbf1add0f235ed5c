"""Tables of very many images that do not exist, one stage a call; `benchmarks.scale` measures it.

``python -m benchmarks.scale_tables checks 100000``. Another process makes the table, so that the
memory measured is that of the stage.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from decodiff_pipeline.data.duplicates import near_duplicate_of
from decodiff_pipeline.data.latent_cache import JOURNAL, LatentCache, shard_name
from decodiff_pipeline.data.manifest import COLUMNS
from decodiff_pipeline.deco.config import PreprocessConfig

SHARD = 1024


def manifest(count: int) -> pd.DataFrame:
    """Rows as `build_manifest` makes them: seven of ten train, one val, calibration and test."""
    random = np.random.default_rng(0)
    digests = [random.bytes(32).hex() for _ in range(count)]
    number = np.arange(count)
    given = {
        "category": "part", "label": "good", "defect_type": "good", "width": 128, "height": 128,
        "mode": "RGB", "bytes": 30_000, "mask_path": None, "error": "", "mask_error": "",
        "mask_width": 0, "mask_height": 0, "mask_pixels": 0, "excluded_because": "",
        "contrast": 200, "bit_depth": 0, "largest_value": 0, "orientation": 1, "note": "",
        "mask_orientation": 0, "mask_note": "", "mask_lossy": False,
    }  # fmt: skip
    split = np.array(["train"] * 7 + ["val", "calibration", "test"])[number % 10]
    paths = [f"part/good/{each:08d}.png" for each in number]
    table = pd.DataFrame(given, index=number).assign(
        split=split, path=paths, sha256=digests, pixels_sha256=digests, dhash=digests
    )
    return table[list(COLUMNS)].astype(COLUMNS)


def checks(file: Path) -> None:
    """All checks of the data validation, near-duplicates included."""
    from decodiff_pipeline.pipelines.data_validation.config import ValidationConfig
    from decodiff_pipeline.pipelines.data_validation.suite import run_checks
    from decodiff_pipeline.pipelines.data_validation.tables import file_table, image_table

    rows = pd.read_parquet(file)
    images = image_table(rows, 12, PreprocessConfig(resize=128, image_size=128))
    files = file_table(rows["path"], set(rows["path"]), set())
    run_checks(images, files, None, ValidationConfig())


def near_duplicates(file: Path) -> None:
    """The search for near-duplicates alone."""
    near_duplicate_of(pd.read_parquet(file), 12)


def cache_index(file: Path) -> None:
    """The index of a latent cache: made of the shards' lines, and asked for every key."""
    keys = pd.read_parquet(file, columns=["sha256"])["sha256"].tolist()
    with tempfile.TemporaryDirectory() as name:
        cache = LatentCache(Path(name))
        with (cache.path / JOURNAL).open("w") as journal:
            for start in range(0, len(keys), SHARD):
                shard = shard_name(start // SHARD)
                (cache.path / shard).touch()
                line = {"shard": shard, "shard_sha256": "", "keys": keys[start : start + SHARD]}
                journal.write(json.dumps(line) + "\n")
        cache.merge_journal()
        if cache.missing(keys):
            raise RuntimeError("the index lacks latents")


STAGES = {"checks": checks, "near-duplicates": near_duplicates, "cache index": cache_index}

if __name__ == "__main__":
    stage, number, *made = sys.argv[1:]
    if made:
        manifest(int(number)).to_parquet(made[0])
    else:
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder, "manifest.parquet")
            subprocess.run([sys.executable, "-m", __spec__.name, stage, number, table], check=True)
            STAGES[stage](table)
