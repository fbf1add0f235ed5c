"""A model's ONNX export: it scores as torch does, or is refused."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from benchmarks import onnx_backends
from diffusers import AutoencoderKL
from PIL import Image
from tests.conftest import textured

from decodiff_pipeline.data.manifest import DataConfig
from decodiff_pipeline.deco.digests import folder_sha256
from decodiff_pipeline.deco.pipeline import DeCoDiffPipeline
from decodiff_pipeline.errors import ConfigurationError, ModelError
from decodiff_pipeline.export import onnx_export, onnx_model
from decodiff_pipeline.export.onnx_export import export, main
from decodiff_pipeline.export.onnx_model import check_export, use_onnx
from decodiff_pipeline.export.onnx_parity import TOLERANCE, parity
from decodiff_pipeline.export.onnx_precision import (
    LIMITS,
    Measured,
    _require_parity,
    convert,
    read_conversion,
)
from decodiff_pipeline.inference.config import InferenceConfig
from decodiff_pipeline.inference.source import InferenceSource
from decodiff_pipeline.inference.store import InferenceStore
from decodiff_pipeline.pipelines.inference.nodes import infer
from decodiff_pipeline.serving.scorer import Scorer, load_pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

THRESHOLDS = {"categories": {"mono": {"threshold": 0.02, "pixel_threshold": 0.01}}}


def require_onnx() -> None:
    for name in onnx_export.PACKAGES:
        pytest.importorskip(name, reason="the extra onnx is not installed")


@pytest.fixture(scope="module")
def exported(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of ``tiny_model``; it takes most of these tests' time."""
    require_onnx()
    folder = tmp_path_factory.mktemp("export") / "onnx"
    logging.disable(logging.INFO)  # torch formats its trace for pytest, a third of the time
    try:
        export(tiny_model, folder)
    finally:
        logging.disable(logging.NOTSET)
    return folder


@pytest.fixture
def other_model(tiny_model: Path, tmp_path: Path) -> Path:
    """The same network with other weights."""
    pipeline = load_pipeline(tiny_model)
    with torch.no_grad():
        pipeline.unet.category_embedding.weight += 1
    pipeline.save_pretrained(tmp_path / "other")
    return tmp_path / "other"


def photographs(number: int) -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 256, (50, 70), np.uint8)) for _ in range(number)]


def test_the_record_tells_what_was_exported(tiny_model: Path, exported: Path) -> None:
    record = json.loads((exported / "onnx.json").read_text())
    assert record["source_sha256"] == folder_sha256(tiny_model)
    assert record["shapes"]["network"]["sample"] == ["batch", 4, 4, 4]
    assert record["shapes"]["encoder"]["images"] == ["batch", 3, 32, 32]
    differences = record["parity"]["differences"]
    assert set(differences) == {"deviation", "latents", "reconstruction", "maps", "scores"}
    assert max(differences.values()) <= record["parity"]["tolerance"] == TOLERANCE
    assert not list(exported.parent.glob(".*"))


@pytest.mark.parametrize("batch_size", [1, 5])
def test_onnx_runtime_scores_as_torch_does(
    tiny_model: Path, exported: Path, batch_size: int
) -> None:
    images, names = photographs(5), ["mono", "poly", "mono", "poly", "poly"]
    expected = load_pipeline(tiny_model)(images, names, batch_size=batch_size)
    pipeline = load_pipeline(tiny_model, exported)
    with torch.no_grad():  # so that torch cannot have computed it
        for parameter in [*pipeline.unet.parameters(), *pipeline.vae.parameters()]:
            parameter.zero_()
    found = pipeline(images, names, batch_size=batch_size)
    assert np.abs(found.scores - expected.scores).max() <= TOLERANCE
    assert np.abs(found.anomaly_maps - expected.anomaly_maps).max() <= TOLERANCE
    assert np.ptp(expected.scores) > 10 * TOLERANCE


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A manifest of random textures and the folder of its images."""
    folder = tmp_path_factory.mktemp("labelled")
    rows = []
    for number in range(24):
        category, path = ("mono", "poly")[number % 2], f"{number}.png"
        textured(number).save(folder / path)
        split = "train" if number < 8 else "test"
        label = "good" if number < 16 else "defective"
        rows.append([category, split, label, path, f"{number:064x}", None])
    columns = ["category", "split", "label", "path", "sha256", "mask_path"]
    pd.DataFrame(rows, columns=columns).to_parquet(folder / "manifest.parquet")
    return folder / "manifest.parquet", folder


@pytest.mark.parametrize(
    ("precision", "parts", "size"), [("float16", onnx_model.PARTS, 0.7), ("int8", ("decoder",), 2)]
)
def test_a_lower_precision_measures_the_same(
    tiny_model: Path,
    exported: Path,
    labelled: tuple[Path, Path],
    tmp_path: Path,
    precision: Any,
    parts: Any,
    size: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("decodiff_pipeline.export.onnx_precision.LIMITS", dict.fromkeys(LIMITS, 1))
    folder = Path(shutil.copytree(exported, tmp_path / "onnx"))
    conversion = read_conversion(precision, (), *labelled, 3)
    assert conversion.parts == parts
    pipeline = load_pipeline(tiny_model, exported)
    told = convert(pipeline, folder, conversion)
    assert set(told["metrics"]) == {"float32", precision}
    assert set(told["metrics"][precision]) == {"mono", "poly"}
    for part in onnx_model.PARTS:
        before, after = (file / f"{part}.onnx" for file in (exported, folder))
        assert (after.read_bytes() == before.read_bytes()) == (part not in parts)
    assert sum(file.stat().st_size for file in folder.glob("*.onnx")) < size * sum(
        file.stat().st_size for file in exported.glob("*.onnx")
    )


def test_a_precision_that_measures_otherwise_is_refused() -> None:
    expected = Measured({"mono": {"image_auroc": 0.9, "pixel_ap": 0.5}}, np.zeros(1))
    for metrics in (
        {"image_auroc": 0.897, "pixel_ap": 0.5},
        {"image_auroc": 0.9, "pixel_ap": 0.506},
    ):
        with pytest.raises(ModelError, match=r"int8 differs from float32 .* of mono is 0\."):
            _require_parity(Measured({"mono": metrics}, np.zeros(1)), expected, "int8")
    _require_parity(expected, expected, "int8")


@pytest.mark.parametrize(
    ("manifest", "images", "number", "message"),
    [
        (None, None, 1, "give --manifest"),
        ("nowhere", "x", 1, "nowhere cannot be read"),
        ("", "x", 0, "--test-images is 0"),
    ],
)
def test_a_lower_precision_needs_labelled_images(
    labelled: tuple[Path, Path], manifest: str | None, images: str, number: int, message: str
) -> None:
    path = None if manifest is None else Path(manifest) if manifest else labelled[0]
    with pytest.raises(ConfigurationError, match=message):
        read_conversion("int8", (), path, None if images is None else Path(images), number)


def test_openvino_computes_the_same(tiny_model: Path, exported: Path) -> None:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    records = list(onnx_backends.run(tiny_model, exported, batches=[1], rounds=1))
    assert {"openvino_network_1", "openvino_pixels_to_map_1"} <= {one["name"] for one in records}
    pipeline = load_pipeline(tiny_model)
    expected = pipeline(photographs(2), ["mono", "poly"])
    onnx_model.attach(pipeline, exported, onnx_backends.OpenVinoSession)
    found = pipeline(photographs(2), ["mono", "poly"])
    assert np.abs(found.scores - expected.scores).max() <= TOLERANCE


def test_batches_above_a_limit_that_diffusers_looks_at(tiny_model: Path, exported: Path) -> None:
    torch_model, onnx_model = load_pipeline(tiny_model), load_pipeline(tiny_model, exported)
    sample, ids = torch.randn(70, 4, 4, 4), torch.arange(70) % 2  # it asks for 64
    with torch.no_grad():
        expected = torch_model.unet(sample, 4, ids)
    assert torch.allclose(onnx_model.unet(sample, 4, ids), expected, atol=TOLERANCE)


@pytest.mark.slow
def test_an_autoencoder_with_a_posterior(tiny_model: Path, exported: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
    ).eval()
    loaded = load_pipeline(tiny_model)
    pipeline = DeCoDiffPipeline(
        vae, loaded.unet, loaded.scheduler, preprocess={"resize": 40, "image_size": 32}
    )
    shutil.copy(exported / "network.onnx", tmp_path)
    for part, (module, inputs) in onnx_export._examples(pipeline).items():
        if part != "network":
            onnx_export._export_part(module, inputs, "output", tmp_path / f"{part}.onnx")
    # Untrained, it makes 2e-4 of the chain's rounding, though each part is as exact as torch's.
    found = parity(pipeline, tmp_path, photographs(2), 10 * TOLERANCE)["differences"]
    assert max(found[part] for part in ("deviation", "latents", "reconstruction")) <= TOLERANCE


def test_what_differs_is_not_written(
    other_model: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "models" / "onnx"
    monkeypatch.setattr(
        onnx_export,
        "_export_part",
        lambda *given: shutil.copy(exported / given[-1].name, given[-1]),
    )
    with pytest.raises(ModelError, match=r"differ by .* in the .*tolerance 0\.0001; nothing was"):
        export(other_model, target)
    assert list(target.parent.iterdir()) == []


def test_another_model_another_size_and_a_changed_file_are_refused(
    tiny_model: Path, other_model: Path, exported: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"exported from another model .* export the model again"):
        load_pipeline(other_model, exported)
    pipeline = load_pipeline(tiny_model, exported)
    with pytest.raises(ModelError, match=r"exported for images of shape \(batch, 3, 32, 32\)"):
        pipeline.discrepancies(torch.zeros(1, 3, 64, 64), torch.zeros(1, dtype=torch.int64))
    folder = Path(shutil.copytree(exported, tmp_path / "onnx"))
    content = bytearray((folder / "network.onnx").read_bytes())
    content[-5] ^= 1
    (folder / "network.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"network\.onnx is missing or was changed"):
        check_export(folder, folder_sha256(tiny_model))


@pytest.mark.parametrize("content", [None, "{", "[]", '{"format": 2}', '{"format": 1}'])
def test_a_folder_that_is_no_export_is_refused(
    tiny_model: Path, tmp_path: Path, content: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("decodiff_pipeline.export.onnx_model.require_packages", lambda *_: None)
    if content is not None:
        (tmp_path / "onnx.json").write_text(content)
    with pytest.raises(ModelError, match=r"onnx\.json cannot be read .*onnx_export --model"):
        use_onnx(load_pipeline(tiny_model), tmp_path, tiny_model)


def test_bfloat16_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    require_onnx()
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps(index | {"bfloat16": True}))
    with pytest.raises(ConfigurationError, match="computes in bfloat16"):
        export(model, tmp_path / "onnx")


def test_wrong_arguments_are_named_at_once_and_no_other_folder_is_overwritten(
    tiny_model: Path, tmp_path: Path
) -> None:
    require_onnx()
    with pytest.raises(ModelError, match=r"nowhere holds no file; run `kedro run"):
        export(tmp_path / "nowhere", tmp_path / "onnx")
    with pytest.raises(ConfigurationError, match=r"tolerance is nan; it must lie"):
        export(tiny_model, tmp_path / "onnx", tolerance=float("nan"))
    assert not (tmp_path / "onnx").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    for target in (tmp_path / "mine", tiny_model / "onnx"):
        with pytest.raises(ModelError, match="name another folder"):
            export(tiny_model, target)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


def test_the_command_ends_with_a_sentence(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "onnx"
    command = ["--model", str(tiny_model), "--to", str(target)]
    with pytest.raises(SystemExit, match=r"error: .* contains no image"):
        main([*command, "--images", str(tmp_path)])
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(SystemExit, match=r"error: not installed, .*onnxscript.*\[onnx\]"):
        main(command)
    assert not target.exists()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigurationError, match=r"not installed, .*onnxruntime; "):
        check_export(target, "")


@pytest.fixture
def run(tiny_model: Path, tmp_path: Path, make: SimpleNamespace) -> Callable[..., Any]:
    """Batch inference on three images."""
    for number in range(3):
        make.image(tmp_path / "shots" / "mono" / f"{number}.png", number, (60, 50))

    def run(onnx: Path, output: str, **config: Any) -> Any:
        return infer(
            InferenceSource(tmp_path / "shots"),
            tiny_model,
            onnx,
            THRESHOLDS,
            InferenceStore(tmp_path / output),
            InferenceConfig(**config),
            DataConfig(layout="folder"),
        )

    return run


def test_batch_inference_with_either_backend(run: Callable[..., Any], exported: Path) -> None:
    expected = run(exported, "torch")["score"]
    found = run(exported, "onnx", backend="onnxruntime")["score"]
    assert found.tolist() == pytest.approx(expected.tolist(), abs=TOLERANCE)


def test_batch_inference_without_an_export_stops_at_once(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    require_onnx()
    with pytest.raises(ModelError, match=r"none/onnx\.json cannot be read"):
        run(tmp_path / "none", "results", backend="onnxruntime")
    assert not (tmp_path / "results").exists()
    with pytest.raises(ValueError, match="'torch' or 'onnxruntime'"):
        run(tmp_path / "none", "results", backend="tensorrt")


def test_the_server_computes_with_the_export_that_its_environment_names(
    tiny_model: Path,
    exported: Path,
    png: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from decodiff_pipeline.serving.served_model import ServedModel

    thresholds = tmp_path / "thresholds.json"
    thresholds.write_text(json.dumps(THRESHOLDS))
    (expected,) = Scorer.from_folder(tiny_model, thresholds).score([png], ["mono"])
    context = SimpleNamespace(
        artifacts={"pipeline": str(tiny_model), "thresholds": str(thresholds)}, model_config={}
    )
    monkeypatch.setenv("DECODIFF_ONNX", str(exported))
    served = ServedModel()
    served.load_context(context)
    (found,) = served._scorer.score([png], ["mono"])
    assert found.score == pytest.approx(expected.score, abs=TOLERANCE)
    monkeypatch.setenv("DECODIFF_ONNX", str(tmp_path))
    with pytest.raises(ModelError, match=r"onnx\.json cannot be read"):
        ServedModel().load_context(context)
