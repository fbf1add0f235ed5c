"""Training the autoencoder: it learns, repeats itself, and says what is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch
from benchmarks.autoencoder_fidelity import cie_lab, delta_e

from decodiff_pipeline.autoencoder.config import AutoencoderTrainingConfig
from decodiff_pipeline.autoencoder.crops import draw_pool
from decodiff_pipeline.autoencoder.image_sources import ManifestImages, ProceduralImages
from decodiff_pipeline.autoencoder.training import train_autoencoder
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.deco.autoencoder import encode, reduction
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.errors import DataError, ImageError, ModelError
from decodiff_pipeline.metrics.reconstruction import (
    has_colour,
    psnr,
    saturation_kept,
)
from decodiff_pipeline.pipelines.autoencoder.nodes import fit_autoencoder, measure_autoencoder
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.muon import Muon, orthogonalise
from decodiff_pipeline.training.scoring import ScoringConfig
from decodiff_pipeline.visibility.config import VisibilityConfig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from diffusers import AutoencoderTiny


SOURCE = {"procedural": ProceduralImages(0, size=64)}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small(**changes: object) -> AutoencoderTrainingConfig:
    settings: dict[str, object] = {
        "sources": {"procedural": 1.0},
        "latent_channels": 4,
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
        rows.append(
            {"category": "cap", "path": f"{index}.png", "split": split, "label": "good"}
            | {"sha256": str(index), "width": 64, "height": 64, "mask_path": None}
        )
    return pd.DataFrame(rows), ImageFolder(tmp_path)


def test_reconstruction_improves_and_scaled_latents_have_unit_deviation() -> None:
    model, log = train_autoencoder(SOURCE, small())
    assert [row["step"] for row in log] == [10, 20, 30, 40]
    assert log[-1]["psnr"] > log[0]["psnr"] + 1.5
    crops = draw_pool(SOURCE, small(), np.random.default_rng(0))
    latents, _ = encode(model, crops.float() / 127.5 - 1)
    assert 0.5 < float(latents.std()) < 2


def test_a_loss_that_is_no_number_stops_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "decodiff_pipeline.autoencoder.crops.to_float",
        lambda images, device: torch.full(images.shape, torch.nan, device=device),
    )
    with pytest.raises(ModelError, match=r"loss is nan with learning_rate 0\.003.*lower it"):
        train_autoencoder(SOURCE, small())


def test_a_fit_that_diverges_is_not_kept() -> None:
    with pytest.raises(ModelError, match=r"(loss is inf|latents is \S+e\+\d+).*nothing was saved"):
        train_autoencoder(SOURCE, small(learning_rate=1.0))


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_state_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = weights(train_autoencoder(SOURCE, small(steps=6))[0])
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(2)
    again = weights(train_autoencoder(SOURCE, small(steps=6))[0])
    other = weights(train_autoencoder(SOURCE, small(steps=6, seed=1))[0])
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_encoder_learns_the_teacher_s_latents(tmp_path: Path) -> None:
    teacher, _ = train_autoencoder({"procedural": ProceduralImages(1, size=64)}, small(seed=1))
    teacher.register_to_config(scaling_factor=1.0)
    teacher.save_pretrained(tmp_path)
    crops = draw_pool(SOURCE, small(), np.random.default_rng(5)).float() / 127.5 - 1

    def agreement(weight: float) -> float:
        pupil, _ = train_autoencoder(SOURCE, small(teacher=str(tmp_path), teacher_weight=weight))
        with torch.no_grad():
            latents = [model.encode(crops).latents.flatten() for model in (pupil, teacher)]
        return float(torch.corrcoef(torch.stack(latents))[0, 1])

    assert agreement(2.0) > agreement(0.0) + 0.3


@pytest.fixture
def first(tmp_path: Path) -> AutoencoderTiny:
    """An autoencoder of five steps, saved in ``tmp_path``."""
    model, _ = train_autoencoder(SOURCE, small(steps=5))
    model.save_pretrained(tmp_path)
    return model


def test_a_fit_goes_on_from_saved_weights(first: AutoencoderTiny, tmp_path: Path) -> None:
    still = small(init_from=str(tmp_path), seed=1, steps=1, learning_rate=1e-9)
    later, _ = train_autoencoder(SOURCE, still)
    for name, weight in weights(first).items():
        torch.testing.assert_close(weights(later)[name], weight)


def test_a_frozen_encoder_keeps_its_latents_and_their_scale(
    first: AutoencoderTiny, tmp_path: Path
) -> None:
    later, _ = train_autoencoder(SOURCE, small(init_from=str(tmp_path), freeze_encoder=True))
    assert later.config.scaling_factor == first.config.scaling_factor
    assert all(torch.equal(weights(later.encoder)[n], w) for n, w in weights(first.encoder).items())
    assert any(
        not torch.equal(weights(later.decoder)[n], w) for n, w in weights(first.decoder).items()
    )


@pytest.mark.usefixtures("first")
def test_other_latents_and_another_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has 4 channels at 1/8 of the size, the fit has 8"):
        train_autoencoder(SOURCE, small(teacher=str(tmp_path), latent_channels=8))
    with pytest.raises(ModelError, match="not an AutoencoderTiny of width 16"):
        train_autoencoder(SOURCE, small(init_from=str(tmp_path), width=16))


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


def test_the_pipeline_fits_one_s_own_images(data: tuple[pd.DataFrame, ImageFolder]) -> None:
    manifest, images = data
    config = small(sources={"manifest": 1.0}, steps=8, log_every=4)
    model, log = fit_autoencoder(manifest, images, config)
    figures, page = measure_autoencoder(
        model,
        manifest,
        images,
        PreprocessConfig(64, 64),
        TrainingConfig(preset="nano", steps=1),
        ScoringConfig(num_inference_steps=5),
        VisibilityConfig(images=2, sizes=(1.0,)),
    )
    assert [row["step"] for row in log] == [4, 8]
    assert figures["visibility"]["cap"]["images"] == 2
    assert "fit an autoencoder" in "".join(figures["warnings"])  # 8 steps reproduce nothing
    assert page.count("<img") == 3 * (2 + 1)


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


def test_psnr_is_ten_log_of_peak_over_error() -> None:
    images = torch.zeros(2, 3, 8, 8)
    off = images.clone()
    off[0] += 0.2
    off[1] += 5  # clamped to 1
    np.testing.assert_allclose(psnr(images, off), [20.0, 10 * np.log10(4)], atol=1e-5)


def test_colour_differences_are_those_of_cie_lab() -> None:
    red = torch.tensor([1.0, -1.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    lab = cie_lab(red)[0, :, 0, 0]
    np.testing.assert_allclose(lab, [53.24, 80.09, 67.20], atol=0.02)  # of sRGB's red under D65
    white = torch.ones(1, 3, 8, 8)
    np.testing.assert_allclose(cie_lab(white)[0, :, 0, 0], [100, 0, 0], atol=1e-6)
    np.testing.assert_allclose(delta_e(white, -white), [100], atol=1e-6)


def test_saturation_is_lost_in_grey_and_not_gained_by_noise() -> None:
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    grey = images.mean(1, keepdim=True).expand_as(images)
    noise = 0.2 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    np.testing.assert_allclose(saturation_kept(images, grey), 0, atol=0.02)
    np.testing.assert_allclose(saturation_kept(images, images), 1)
    np.testing.assert_allclose(saturation_kept(images, (images * 0.8 + noise)), 0.8, atol=0.05)
    assert has_colour(images).all()
    assert not has_colour(grey).any()


def test_orthogonalised_matrices_have_singular_values_near_one() -> None:
    matrices = torch.randn(3, 6, 40, generator=torch.Generator().manual_seed(0))
    for some in (matrices, matrices.mT):
        values = torch.linalg.svdvals(orthogonalise(some))
        assert values.min() > 0.6
        assert values.max() < 1.3


def test_muon_finds_a_convolution_and_refuses_a_bias() -> None:
    images = torch.randn(16, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = torch.nn.functional.conv2d(images, torch.full((4, 4, 3, 3), 0.05))
    weight = torch.nn.Parameter(torch.zeros(4, 4, 3, 3))
    optimizer = Muon([weight], lr=0.02)
    for step in range(100):
        optimizer.param_groups[0]["lr"] = 0.02 * (1 - step / 100)
        loss = (torch.nn.functional.conv2d(images, weight) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.02 * wanted.square().mean()
    with pytest.raises(ValueError, match=r"no weight of shape \(4,\)"):
        Muon([torch.nn.Parameter(torch.zeros(4))], lr=0.02)


def test_three_levels_give_latents_at_a_quarter_of_the_resolution() -> None:
    config = small(steps=2, blocks=(0, 1, 1), latent_channels=6)
    model, _ = train_autoencoder(SOURCE, config)
    assert reduction(model) == 4
    assert encode(model, torch.zeros(1, 3, 32, 32))[0].shape == (1, 6, 8, 8)
