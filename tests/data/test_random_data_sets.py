"""Whatever a data set looks like: its manifest is the right one, or validation says why not.

``DECODIFF_EXAMPLES=5000`` looks at as many random data sets, others at each run; without it the
same 40 are looked at, which takes a minute.
"""

from __future__ import annotations

import logging
import os
import tempfile
import unicodedata
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from tests.data.random_data_sets import ODDITIES, data_set
from tests.data.sample_data_sets import DEFECTS, MIN_SIDE, PLACES, DataSet

from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.layouts import layout_names
from decodiff_pipeline.data.manifest import DataConfig, build_manifest
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.errors import DataError
from decodiff_pipeline.pipelines.data_validation.config import ValidationConfig
from decodiff_pipeline.pipelines.data_validation.nodes import validate

if TYPE_CHECKING:
    import pandas as pd

EXAMPLES = os.environ.get("DECODIFF_EXAMPLES")
VALIDATION = ValidationConfig(min_side=MIN_SIDE, min_train_images=1, min_held_out_images=0)
GEOMETRY = PreprocessConfig(32, 32)


class Verdict(NamedTuple):
    """The manifest, None where there is none; what stops the run; what else is said."""

    manifest: pd.DataFrame | None
    errors: list[str]
    warnings: list[str]


def data_sets() -> st.SearchStrategy[DataSet]:
    names = st.sampled_from(("a", "01", "Cap", "büchse", "two words"))
    category = st.tuples(
        names, st.integers(3, 5), st.integers(0, 2), st.integers(0, 2), st.booleans()
    )
    oddity = st.tuples(st.integers(0, len(ODDITIES) - 1), st.integers(0, 17), st.integers(0, 59))
    return st.builds(
        data_set,
        st.sampled_from([name for name in PLACES if name in layout_names()]),
        st.lists(category, min_size=1, max_size=2, unique_by=lambda one: one[0]).map(tuple),
        st.lists(oddity, max_size=3).map(tuple),
    )


@settings(
    max_examples=int(EXAMPLES or 40),
    derandomize=EXAMPLES is None,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(data_sets())
def test_the_manifest_is_right_or_validation_says_why_not(data: DataSet) -> None:
    note(f"{data.layout}: {sorted(data.files)}, links {data.links}")
    assert problems(data) == []


def problems(data: DataSet) -> list[str]:
    """What is wrong and not said, and what is said without a reason."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name, "raw")
        root.mkdir()
        data.write(root)
        verdict = judged(root, data.layout)
    errors = "\n".join(verdict.errors)
    said = "\n".join([errors, *verdict.warnings])
    found = []
    if verdict.manifest is not None:
        wrong = wrong_rows(data, verdict.manifest)
        found += [f"{one} is wrong, nothing says so" for one in wrong if not is_named(one, said)]
        found += [f"{one} does not stop" for one in data.stopped if not is_named(one, errors)]
        found += [f"{one} is not told" for one in data.told if not is_named(one, said)]
    suspects = data.touched | data.stopped | data.told
    found += [
        f"false alarm: {error}"
        for error in verdict.errors
        if not any(is_named(path, error) for path in suspects)
    ]
    return sorted(found)


def judged(root: Path, layout: str) -> Verdict:
    """What validation says of a data set."""
    none = {"val_fraction": 0, "calibration_fraction": 0, "test_fraction": 0}
    config = DataConfig(layout=layout, workers=1, **none)  # type: ignore[arg-type]
    heard: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("decodiff_pipeline")
    logger.addHandler(handler)
    try:
        manifest = build_manifest(ImageFolder(root), config)
        checks = validate(manifest, ImageFolder(root), config, GEOMETRY, VALIDATION)[0]["checks"]
    except DataError as error:
        return Verdict(None, [str(error)], heard)
    finally:
        logger.removeHandler(handler)
    errors = [
        f"{check['name']}: {offender}"
        for check in checks
        if check["severity"] == "error"
        for offender in check["offenders"]
    ]
    warned = [str(check) for check in checks if check["severity"] != "error"]
    return Verdict(manifest, errors, heard + warned)


def wrong_rows(data: DataSet, manifest: pd.DataFrame) -> set[str]:
    """Paths that have no row, no right one, or should have none."""
    rows = {nfc(row["path"]): row for row in manifest.to_dict("records")}
    wrong = set(rows)
    for photo in data.photos:
        row = rows.get(nfc(photo.path))
        truth = photo.mask_path.removesuffix("/000.png")  # of several masks the folder
        right = row is not None and (
            row["category"] == nfc(photo.category)
            and row["label"] == ("defective" if photo.kind == "defect" else "good")
            and (data.layout == "elpv" or (row["split"] == "test") == (photo.kind != "train"))
            and (
                photo.kind != "defect" or row["defect_type"] == DEFECTS.get(data.layout, "scratch")
            )
            and not row["error"]
            and nfc(str(row["mask_path"] if photo.mask_path else "")).startswith(nfc(truth))
            and row["mask_pixels"] == (60 if photo.mask_path else 0)
        )
        if right:
            wrong.remove(nfc(photo.path))
        else:
            wrong.add(nfc(photo.path))
    return wrong


def is_named(path: str, text: str) -> bool:
    """Whether a text has the last part of one of some paths, as it is or escaped."""
    names = [PurePosixPath(one).name for one in path.split("\n")]
    plain = nfc(text)
    return any(
        nfc(form) in plain
        for name in names
        for form in (name, repr(name)[1:-1], ascii(name)[1:-1], PurePosixPath(name).stem)
    )


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
