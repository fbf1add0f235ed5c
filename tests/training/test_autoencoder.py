"""Training the autoencoder: it learns, repeats itself, and copies nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, get_type_hints

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from decodiff_pipeline.data.image_sources import ManifestImages, ProceduralImages
from decodiff_pipeline.data.images import ImageFolder, read_image
from decodiff_pipeline.deco.autoencoder import encode, load_autoencoder
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.preprocess import to_square, to_tensor
from decodiff_pipeline.deco.weights import WEIGHTS_FILE, AutoencoderConfig, locate
from decodiff_pipeline.errors import ConfigurationError, DataError, ImageError, ModelError
from decodiff_pipeline.evaluation.reconstruction import psnr, reconstruction_report
from decodiff_pipeline.pipelines.autoencoder.nodes import fit_autoencoder, measure_autoencoder
from decodiff_pipeline.training.autoencoder import (
    draw_pool,
    learning_rate,
    new_autoencoder,
    train_autoencoder,
)
from decodiff_pipeline.training.autoencoder_config import AutoencoderTrainingConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_BYTES = 5_000_000


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small(**changes: object) -> AutoencoderTrainingConfig:
    settings: dict[str, object] = {
        "sources": {"procedural": 1.0},
        "width": 8,
        "blocks": (1, 1, 1, 1),
        "image_size": 64,
        "crop_size": 32,
        "pool_size": 16,
        "crops_per_image": 4,
        "passes": 4,
        "steps": 40,
        "batch_size": 4,
        "learning_rate": 3e-3,
        "warmup_steps": 5,
        "ema_decay": 0.9,
        "log_every": 10,
    }
    return AutoencoderTrainingConfig.model_validate(settings | changes)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture
def data(tmp_path: Path) -> tuple[pd.DataFrame, ImageFolder]:
    from PIL import Image

    rows = []
    source = ProceduralImages(9, size=64)
    for index in range(6):
        Image.fromarray(source[index]).save(tmp_path / f"{index}.png")
        split = "train" if index < 4 else "val"
        rows.append({"path": f"{index}.png", "split": split, "label": "good"})
    return pd.DataFrame(rows), ImageFolder(tmp_path)


def test_reconstruction_improves() -> None:
    _, log = train_autoencoder({"procedural": ProceduralImages(0, size=64)}, small())
    assert [row["step"] for row in log] == [10, 20, 30, 40]
    assert log[-1]["psnr"] > log[0]["psnr"] + 3


def test_a_loss_that_is_no_number_stops_the_fit() -> None:
    def broken(images: torch.Tensor) -> torch.Tensor:
        return torch.full((len(images), 4, 4, 4), torch.nan)

    with pytest.raises(ModelError, match=r"loss is nan with learning_rate 0\.003.*lower it"):
        train_autoencoder({"procedural": ProceduralImages(0, size=64)}, small(), teacher=broken)


def test_a_fit_that_diverges_is_not_kept() -> None:
    config = small(learning_rate=0.3)
    with pytest.raises(ModelError, match=r"latents is \S+e\+\d+ after .* now 0\.3; nothing was"):
        train_autoencoder({"procedural": ProceduralImages(0, size=64)}, config)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_state_alone() -> None:
    sources = {"procedural": ProceduralImages(0, size=64)}
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = weights(train_autoencoder(sources, small(steps=6))[0])
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    again = weights(train_autoencoder(sources, small(steps=6))[0])
    other = weights(train_autoencoder(sources, small(steps=6, seed=1))[0])
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_teacher_pulls_the_latents_towards_its_own_without_lending_a_tensor() -> None:
    config = small(steps=60)
    sources = {"procedural": ProceduralImages(0, size=64)}
    teacher = new_autoencoder(small(seed=7))
    with torch.no_grad():
        teacher.encoder.layers[-1].weight.mul_(20)  # latents worth imitating
    student, log = train_autoencoder(
        sources, config, teacher=lambda images: encode(teacher, images)[0]
    )
    assert log[-1]["latent_mse"] < 0.7 * log[0]["latent_mse"]
    ours, theirs = weights(student), weights(teacher)
    assert not any(torch.equal(ours[name], theirs[name]) for name in ours)


def test_without_a_teacher_scaled_latents_have_unit_deviation() -> None:
    source = ProceduralImages(0, size=64)
    model, _ = train_autoencoder({"procedural": source}, small())
    crops = draw_pool({"procedural": source}, small(), np.random.default_rng(0))
    latents, _ = encode(model, crops.float() / 127.5 - 1)
    assert 0.5 < float(latents.std()) < 2


def test_crops_are_never_taken_from_enlarged_large_images() -> None:
    class Stripes:
        """One-pixel stripes: any enlargement or reduction would blur them to grey."""

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> np.ndarray:
            stripes = np.zeros((80, 80, 3), np.uint8)
            stripes[::2] = 255
            return stripes

    pool = draw_pool(
        {"procedural": Stripes()}, small(image_size=80, max_scale=4), np.random.default_rng(0)
    )
    assert set(np.unique(pool.numpy())) == {0, 255}


def test_learning_rate_warms_up_and_falls_to_zero() -> None:
    config = small(steps=100, warmup_steps=10, learning_rate=1e-2)
    rates = [learning_rate(step, config) for step in range(101)]
    assert rates[9] == max(rates) == pytest.approx(1e-2)
    assert rates[100] == pytest.approx(0, abs=1e-12)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"crop_size": 36}, "multiple of 8"),
        ({"crop_size": 128}, "larger than image_size 64"),
        ({"sources": {}}, "at least one share"),
        ({"sources": {"manifest": 0}}, "above 0"),
        ({"sources": {"internet": 1}}, "internet"),
        ({"learning_rat": 1}, "learning_rat"),
        ({"batch_size": 65}, "less than one batch"),
    ],
)
def test_a_wrong_parameter_is_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        small(**changes)


def test_the_pipeline_fits_one_s_own_images(data: tuple[pd.DataFrame, ImageFolder]) -> None:
    manifest, images = data
    config = small(sources={"manifest": 1.0}, steps=8, log_every=4)
    model, log = fit_autoencoder(manifest, images, config)
    report = measure_autoencoder(model, manifest, images, PreprocessConfig(64, 64), config)
    assert [row["step"] for row in log] == [4, 8]
    assert report["images"] == 2
    assert report["psnr_min"] <= report["psnr"]


@pytest.mark.parametrize("node", [fit_autoencoder, measure_autoencoder])
def test_kedro_can_resolve_the_annotations_of_a_node(node: Callable[..., object]) -> None:
    assert get_type_hints(node)["config"] is AutoencoderTrainingConfig


def test_a_damaged_image_is_named(data: tuple[pd.DataFrame, ImageFolder]) -> None:
    manifest, images = data
    for index in range(4):
        (images.path / f"{index}.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"\.png"):
        fit_autoencoder(manifest, images, small(sources={"manifest": 1.0}))


def test_no_good_training_image_is_an_error(data: tuple[pd.DataFrame, ImageFolder]) -> None:
    manifest, images = data
    with pytest.raises(DataError, match="no good image in split 'train'"):
        ManifestImages(manifest.assign(label="defective"), images)


def test_a_missing_teacher_is_named_before_training(
    data: tuple[pd.DataFrame, ImageFolder], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match=r"autoencoder_training\.teacher.*empty"):
        fit_autoencoder(*data, small(teacher=str(tmp_path / "empty"), steps=10**6))


def test_psnr_is_ten_log_of_peak_over_error() -> None:
    images = torch.zeros(2, 3, 8, 8)
    off = images.clone()
    off[0] += 0.2
    off[1] += 5  # clamped to 1
    np.testing.assert_allclose(psnr(images, off), [20.0, 10 * np.log10(4)], atol=1e-5)


def test_an_autoencoder_agrees_with_itself() -> None:
    model = new_autoencoder(small()).eval()
    batches = [torch.rand(2, 3, 32, 32) * 2 - 1 for _ in range(3)]
    report = reconstruction_report(model, batches, teacher=model)
    assert report["images"] == 6
    assert report["latent_mse"] == pytest.approx(0, abs=1e-5)
    assert report["latent_correlation"] == pytest.approx(1, abs=1e-4)
    assert report["teacher_psnr"] == report["psnr"]


def folder_of(data: str) -> Path:
    if data == "elpv":
        package = pytest.importorskip("elpv_dataset", reason="needs the package elpv-dataset")
        return Path(package.__file__).parent
    root = os.environ.get("DECODIFF_TEST_DATA")
    folder = Path(root or ".") / data
    if not root or not folder.is_dir():
        pytest.skip(f"needs {data} in the folder that DECODIFF_TEST_DATA names")
    return folder


@pytest.mark.parametrize(
    ("data", "least"), [("elpv", 32.0), ("magnetic_tile/magnetic_tile/test", 29.0)]
)
def test_the_shipped_weights_reproduce_images_they_never_saw(data: str, least: float) -> None:
    paths = sorted(p for p in folder_of(data).rglob("*") if p.suffix in {".png", ".jpg"})
    chosen = paths[:: len(paths) // 8]
    config = PreprocessConfig(256, 256)
    batches = (to_tensor([to_square(read_image(path), config)]) for path in chosen)
    report = reconstruction_report(load_autoencoder(AutoencoderConfig()), batches)
    assert report["images"] >= 8
    assert report["psnr"] >= least


def test_the_shipped_weights_are_small() -> None:
    assert (locate(AutoencoderConfig()) / WEIGHTS_FILE).stat().st_size <= MAX_BYTES


def test_the_shipped_weights_hold_no_tensor_of_the_teacher() -> None:
    data = os.environ.get("DECODIFF_TEST_DATA")
    teacher = Path(data or ".").parent / "weights" / "taesd" / WEIGHTS_FILE
    if not data or not teacher.is_file():
        pytest.skip("needs the teacher's weights beside the folder DECODIFF_TEST_DATA names")
    theirs = list(load_file(teacher).values())
    for name, ours in load_file(locate(AutoencoderConfig()) / WEIGHTS_FILE).items():
        same = [t for t in theirs if t.shape == ours.shape and torch.equal(t.float(), ours.float())]
        assert not same, name
