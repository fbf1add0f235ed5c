"""Folders and manifests of images, and what is refused before any work."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from tests.models import small_pipeline

from decodiff_pipeline.errors import DataError, DecodiffError, ModelError
from decodiff_pipeline.inference.run import as_the_model_spells
from decodiff_pipeline.inference.source import Item

if TYPE_CHECKING:
    from tests.inference.conftest import World


def test_manifests(world: World, scored: list[Any]) -> None:
    by_folder = world.run().set_index("path")
    table = pd.DataFrame(
        {
            "path": ["mono/3.png", "./poly/deep/0.png", "mono/1.png"],
            "category": ["mono", "poly", "poly"],
            "sha256": [by_folder["sha256"]["mono/3.png"].upper(), None, "0" * 64],
        }
    )
    table.to_csv(world.source / "list.csv", index=False)
    table.to_parquet(world.source / "list.parquet")
    world.output = world.root / "from_list"
    results = world.run(world.source / "list.csv")
    assert results["path"].tolist() == ["mono/3.png", "poly/deep/0.png", "mono/1.png"]
    for path in results["path"][:2]:
        row = results.set_index("path").loc[path]
        assert row["score"] == pytest.approx(by_folder["score"][path], abs=1e-6)
    assert "1.png has the SHA-256" in results["error"][2]
    scored.clear()
    pd.testing.assert_frame_equal(world.run(world.source / "list.parquet").iloc[:2],
                                  results.iloc[:2])  # fmt: skip
    assert scored == []
    assert set(world.run(world.source / "list.csv", category="mono")["category"]) == {"mono"}


def test_a_flat_folder_needs_no_category_where_the_model_knows_one(
    world: World, scored: list[Any]
) -> None:
    shutil.rmtree(world.model)
    small_pipeline(["mono"]).save_pretrained(world.model)
    world.image(world.source / "mono" / "speck.png", 5, (1, 1))
    results = world.run(world.source / "mono")
    assert set(results["category"]) == {"mono"}
    assert scored == [(60, 50)] * 4
    assert results["path"].tolist() == ["0.png", "1.png", "2.png", "3.png", "speck.png"]
    (error,) = results["error"].dropna()
    assert "speck.png has 1x1 pixels, too few to be scored" in error
    with pytest.raises(ModelError, match="category 'poly', which the model does not know"):
        world.run()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("file,category\na.png,mono\n", r"list.csv has no column 'path' \(it has file, category"),
        ("path\nmono/0.png\n", "no column 'category'.*inference.category"),
        ("path,category\n../secret.png,mono\n", r"the path '../secret.png' in line 2 is not in"),
        ("path,category\n/etc/passwd,mono\n", "the path '/etc/passwd' in line 2 is not in"),
        ("path,category\nmono/0.png,mono\n./mono/0.png,mono\n", "lines 2 and 3 both name 'mono/0"),
        ("path,category\nmono/0.png,\n", r"line 2 \('mono/0.png'\) has no category"),
        ("path,category\n", "holds no image"),
        ("path,category\nmono/0.png,wood\n", "category 'wood', which the model.*mono, poly"),
        ("", "list.csv is empty: write"),
    ],
)
def test_a_wrong_manifest_is_told_before_any_work(
    world: World, scored: list[Any], content: str, sentence: str
) -> None:
    (world.source / "list.csv").write_text(content)
    with pytest.raises(DecodiffError, match=sentence):
        world.run(world.source / "list.csv")
    assert scored == []
    assert not world.output.exists()


@pytest.mark.parametrize(
    ("source", "config", "sentence"),
    [
        ("nowhere", {}, r"inference\.source .*nowhere does not exist"),
        ("empty", {}, "empty holds no image"),
        ("shots/mono", {}, r"0\.png lies in no folder.*inference\.category"),
        ("", {}, r"inference\.output .* lies in inference\.source"),
        ("shots/poly", {}, "category 'deep'.*it knows mono, poly"),
        ("shots", {"thresholds": {"wood": 0.5}}, r"inference\.thresholds has the unknown"),
        ("shots", {"pixel_thresholds": {"wood": 0.5}}, r"inference\.pixel_thresholds has the unk"),
    ],
)
def test_other_mistakes_are_told_before_any_work(
    world: World, scored: list[Any], source: str, config: dict[str, Any], sentence: str
) -> None:
    (world.root / "empty").mkdir()
    with pytest.raises(DecodiffError, match=sentence):
        world.run(world.root / source, **config)
    assert scored == []
    assert not world.output.exists()


def test_a_missing_model_and_a_file_as_the_output_are_told(world: World) -> None:
    world.output.write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"cannot write to .*results .*inference\.output"):
        world.run()
    shutil.rmtree(world.model)
    with pytest.raises(ModelError, match="model holds no file; run `kedro run"):
        world.run()


def test_a_category_is_known_in_either_unicode_form() -> None:
    nfc, nfd = "Geh\u00e4use", "Geha\u0308use"
    items = [Item("0.png", nfd), Item("1.png", nfc), Item("2.png", "cap")]
    spelt = as_the_model_spells(items, [nfc])
    assert [item.category for item in spelt] == [nfc, nfc, "cap"]
    assert [item.category for item in as_the_model_spells(items, [nfd])] == [nfd, nfd, "cap"]
