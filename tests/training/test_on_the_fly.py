"""Encoding on the fly: fresh views, repeatable batches, posterior samples, exact resume."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest
import torch

from decodiff_pipeline.data.caching import LatentCacheConfig, fill_cache
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.latent_cache import LatentCache
from decodiff_pipeline.data.manifest import DataConfig, build_manifest
from decodiff_pipeline.data.transforms import AugmentationConfig
from decodiff_pipeline.deco.autoencoder import encode, load_autoencoder
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.preprocess import to_square, to_tensor
from decodiff_pipeline.deco.weights import AutoencoderConfig
from decodiff_pipeline.errors import CheckpointError, ImageError
from decodiff_pipeline.training.checkpoints import CheckpointStore
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.on_the_fly import OnTheFlyBatches, TrainingImage
from decodiff_pipeline.training.setup import set_up_training

if TYPE_CHECKING:
    from pathlib import Path
    from types import SimpleNamespace

    from decodiff_pipeline.deco.autoencoder import Autoencoder
    from decodiff_pipeline.training.loop import TrainingRun

IMAGES = 7
GEOMETRY = PreprocessConfig(resize=64, image_size=64)
STILL = AugmentationConfig(max_translation=0)


def save_kl(folder: Path) -> AutoencoderConfig:
    """An ``AutoencoderKL`` with random weights: its latents have a posterior."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
        layers_per_block=1,
        latent_channels=4,
    ).save_pretrained(folder)
    return AutoencoderConfig(source=str(folder))


@pytest.fixture
def raw(tmp_path: Path, make: SimpleNamespace) -> ImageFolder:
    for number in range(IMAGES):
        make.image(tmp_path / "raw" / f"{number}.png", number, size=(64, 64))
    return ImageFolder(tmp_path / "raw")


@pytest.fixture
def tiny(tiny_autoencoder: AutoencoderConfig) -> Autoencoder:
    return load_autoencoder(tiny_autoencoder)


@pytest.fixture
def kl(tmp_path: Path) -> Autoencoder:
    return load_autoencoder(save_kl(tmp_path / "kl"))


def batches(raw: ImageFolder, autoencoder: Autoencoder, **options: Any) -> OnTheFlyBatches:
    """Batches of 3 over the 7 images, the third image of another category than the rest."""
    chosen = [
        TrainingImage(path.name, hashlib.sha256(path.read_bytes()).hexdigest(), int(number == 2))
        for number, path in enumerate(sorted(raw.path.iterdir()))
    ]
    defaults = {"geometry": GEOMETRY, "batch_size": 3, "seed": 0, "encode_at_once": 2,
                "augmentation": AugmentationConfig(translation_probability=1.0)}  # fmt: skip
    return OnTheFlyBatches(raw, chosen, autoencoder, **{**defaults, **options})


def moments(raw: ImageFolder, autoencoder: Autoencoder) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of the unaugmented images, each encoded by itself."""
    paths = sorted(path.name for path in raw.path.iterdir())
    alone = [encode(autoencoder, to_tensor([to_square(raw.read(p), GEOMETRY)])) for p in paths]
    mean, std = (torch.cat(parts) for parts in zip(*alone, strict=True))
    return mean, std


def nearest(latents: torch.Tensor, references: torch.Tensor) -> list[int]:
    """Position of the closest reference of each latent, by Euclidean distance."""
    return torch.cdist(latents.flatten(1), references.flatten(1)).argmin(1).tolist()


def test_a_batch_depends_on_its_number_alone(raw: ImageFolder, tiny: Autoencoder) -> None:
    in_order, backwards = batches(raw, tiny), batches(raw, tiny)
    forward = [in_order.batch(number) for number in range(6)]
    torch.manual_seed(99)
    for number in reversed(range(6)):
        again = backwards.batch(number)
        assert torch.equal(again.latents, forward[number].latents)
        assert torch.equal(again.category_ids, forward[number].category_ids)
    assert not torch.equal(batches(raw, tiny, seed=1).batch(0).latents, forward[0].latents)


def test_an_epoch_shows_every_image_once_with_its_category(
    raw: ImageFolder, tiny: Autoencoder
) -> None:
    drawn = batches(raw, tiny, augmentation=STILL)
    references, _ = moments(raw, tiny)
    for epoch in range(2):
        epochs = [drawn.batch(3 * epoch + part) for part in range(3)]
        assert [len(batch.latents) for batch in epochs] == [3, 3, 1]
        shown = nearest(torch.cat([batch.latents for batch in epochs]), references)
        assert sorted(shown) == list(range(IMAGES))
        ids = torch.cat([batch.category_ids for batch in epochs]).tolist()
        assert [image for image, number in zip(shown, ids, strict=True) if number] == [2]


def test_without_augmentation_latents_are_those_of_the_images(
    raw: ImageFolder, tiny: Autoencoder
) -> None:
    references, _ = moments(raw, tiny)
    latents = batches(raw, tiny, augmentation=STILL).batch(0).latents
    expected = references[nearest(latents, references)]
    torch.testing.assert_close(latents, expected, atol=1e-5, rtol=0)


def test_no_view_comes_twice(raw: ImageFolder, tiny: Autoencoder) -> None:
    # 17² shifts times 4 orientations: three views of an image rarely agree, and the seed is fixed.
    moving = AugmentationConfig(max_translation=8, translation_probability=1.0, rotate_180=True,
                                horizontal_flip=True, vertical_flip=True)  # fmt: skip
    drawn = batches(raw, tiny, augmentation=moving, batch_size=IMAGES)
    views = torch.cat([drawn.batch(epoch).latents for epoch in range(3)])
    assert len(torch.unique(views, dim=0)) == 3 * IMAGES


def test_training_samples_the_posterior_and_inference_takes_its_mean(
    raw: ImageFolder, kl: Autoencoder
) -> None:
    means, stds = moments(raw, kl)
    again, _ = moments(raw, kl)
    assert torch.equal(means, again)  # nothing is drawn where the mean is asked for
    still = {"augmentation": STILL, "batch_size": IMAGES}
    mean = batches(raw, kl, sample_posterior=False, **still).batch(0).latents
    order = nearest(mean, means)
    torch.testing.assert_close(mean, means[order], atol=1e-5, rtol=0)
    sampling = batches(raw, kl, **still)
    sampled = sampling.batch(0).latents
    assert torch.equal(sampled, sampling.batch(0).latents)
    noise = (sampled - mean) / stds[order]
    assert noise.mean().abs() < 0.1  # of 1,792 standard normal numbers
    assert noise.std() == pytest.approx(1, abs=0.1)


def test_an_image_that_vanished_is_named(raw: ImageFolder, tiny: Autoencoder) -> None:
    drawn = batches(raw, tiny)
    for path in raw.path.iterdir():
        path.unlink()
    with pytest.raises(ImageError, match=r"\.png does not exist"):
        drawn.batch(0)


def prepared(folder: Path, config: TrainingConfig, latents: LatentCacheConfig) -> TrainingRun:
    """A run on one category in MVTec's layout, as the training node prepares it."""
    images, cache = ImageFolder(folder / "raw"), LatentCache(folder / "cache")
    manifest = build_manifest(images, DataConfig(layout="mvtec"))
    common = {"geometry": GEOMETRY, "autoencoder": AutoencoderConfig(str(folder / "kl"))}
    fill_cache(cache, manifest=manifest, images=images, config=latents, **common)
    store = CheckpointStore(folder / f"checkpoints {config.seed}")
    return set_up_training(
        manifest, cache, store, images=images, latents=latents, config=config, **common
    )


def configured(**options: Any) -> TrainingConfig:
    return TrainingConfig.model_validate({
        "preset": "nano", "steps": 4, "batch_size": 12, "bfloat16": False, "dropout": 0.1,
        "standardise_latents": True, "validate_every": 2, "checkpoint_every": 2,
        "progress_bar": False, "latents": "on_the_fly", "threads": 1, **options,
    })  # fmt: skip


def test_a_run_on_the_fly_resumes_exactly(tmp_path: Path, mvtec_tree: Path) -> None:
    save_kl(tmp_path / "kl")
    latents = LatentCacheConfig(views=1)
    whole = prepared(tmp_path, configured(), latents)
    unet = whole.run()
    expected = [parameter.clone() for parameter in unet.parameters()]
    # What a kill after step 2 leaves: the checkpoint of step 2 alone.
    for path in whole.store.path.iterdir():
        if "00000004" in path.name:
            path.unlink()
    assert whole.store.steps() == [2]
    resumed = prepared(tmp_path, configured(), latents)
    after = list(resumed.run().parameters())
    assert all(torch.equal(a, b) for a, b in zip(after, expected, strict=True))
    assert "held_out_loss" in resumed.log[-1]


def test_another_augmentation_is_another_run(tmp_path: Path, mvtec_tree: Path) -> None:
    save_kl(tmp_path / "kl")
    run = prepared(tmp_path, configured(), LatentCacheConfig(views=1))
    run.run()
    for path in run.store.path.iterdir():
        if "00000004" in path.name:
            path.unlink()
    turning = LatentCacheConfig(views=1, augmentation=AugmentationConfig(rotate_180=True))
    with pytest.raises(CheckpointError, match="rotate_180"):
        prepared(tmp_path, configured(), turning).run()


def test_auto_goes_on_where_the_autoencoder_has_another_precision(
    tmp_path: Path, mvtec_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_kl(tmp_path / "kl")
    latents = LatentCacheConfig(views=1, bfloat16="auto")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    run = prepared(tmp_path, configured(), latents)
    run.run()
    for path in run.store.path.iterdir():
        if "00000004" in path.name:
            path.unlink()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    with pytest.raises(CheckpointError, match="autoencoder_dtype was bfloat16 and is float32"):
        prepared(tmp_path, configured(), LatentCacheConfig(views=1, bfloat16=False)).run()
    resumed = prepared(tmp_path, configured(), latents)
    resumed.run()
    assert resumed.step == 4
    checkpoint = resumed.store.latest()
    assert checkpoint is not None
    assert checkpoint.identity["autoencoder_dtype"] == "float32"


def test_cached_views_beyond_the_first_are_not_asked_for(tmp_path: Path, mvtec_tree: Path) -> None:
    save_kl(tmp_path / "kl")
    config = configured()
    one = prepared(tmp_path, config, LatentCacheConfig(views=1))
    three = prepared(tmp_path, config, LatentCacheConfig(views=3))
    assert one.identity == three.identity
    statistics = one.unet.config["latent_mean"]
    assert all(-10 < mean < 10 for mean in statistics)
    assert torch.equal(one.batches.batch(0).latents, three.batches.batch(0).latents)
