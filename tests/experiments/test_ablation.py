"""Ablation: every variant is what it says, and nothing is trained or scored twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml

from decodiff_pipeline.data.caching import LatentCacheConfig, fill_cache
from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.data.latent_cache import LatentCache
from decodiff_pipeline.data.manifest import DataConfig, build_manifest
from decodiff_pipeline.deco.config import PreprocessConfig
from decodiff_pipeline.deco.weights import AutoencoderConfig
from decodiff_pipeline.errors import CheckpointError, ConfigurationError, DataError
from decodiff_pipeline.evaluation.assessment import plain_metrics
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.evaluation.predictions import PredictionStore
from decodiff_pipeline.evaluation.scoring import score_images
from decodiff_pipeline.experiments import discrepancy_cache
from decodiff_pipeline.experiments.ablation import AblationData, run_ablation
from decodiff_pipeline.experiments.ablation_config import AblationConfig, plan
from decodiff_pipeline.experiments.ablation_report import draw, render_table, summarise
from decodiff_pipeline.experiments.ablation_store import AblationStore
from decodiff_pipeline.training import setup
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.scoring import ScoringConfig

if TYPE_CHECKING:
    from types import SimpleNamespace

pytestmark = pytest.mark.usefixtures("small_networks")

CONF = Path(__file__).parents[2] / "conf"
TRAINING = TrainingConfig.model_validate({
    "preset": "nano", "epochs": 9, "batch_size": 16, "learning_rate": 1e-3, "bfloat16": False,
    "dropout": 0.0, "ema_decay": 0.5, "threads": 1, "progress_bar": False, "checkpoint_every": 9,
})  # fmt: skip
SCORING = ScoringConfig.model_validate({"num_inference_steps": 2, "discrepancy": {
    "normalisation": "position", "latent_reduction": "rms", "top_share": 0.01}})  # fmt: skip
STUDIES = [
    {"name": "steps", "variants": [
        {"name": 2, "scoring": {"num_inference_steps": 2}},
        {"name": 3, "scoring": {"num_inference_steps": 3}},
    ]},
    {"name": "fusion", "variants": [
        {"name": "pixel", "scoring": {"discrepancy": {"fusion": "pixel"}}},
        {"name": "latent", "scoring": {"discrepancy": {"fusion": "latent"}}},
    ]},
    {"name": "masks", "variants": [
        {"name": 0.2, "training": {"corruption": {"max_mask_ratio": 0.2}}},
        {"name": 0.7, "training": {"corruption": {"max_mask_ratio": 0.7}}},
    ]},
    {"name": "posterior", "variants": [{"name": "mean", "training": {"sample_posterior": False}}]},
]  # fmt: skip


def ablation(**options: Any) -> AblationConfig:
    """The studies above, on networks of three steps."""
    return AblationConfig.model_validate({"training": {"steps": 3}, "studies": STUDIES, **options})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, make: SimpleNamespace) -> AblationData:
    """Two categories of small images, their latents cached."""
    root = tmp_path_factory.mktemp("ablation")
    for number, name in enumerate(("bolt", "nut")):
        make.category(root / "raw", name, train=14, seed=number)
    images = ImageFolder(root / "raw")
    manifest = build_manifest(images, DataConfig(layout="mvtec"))
    geometry, autoencoder = PreprocessConfig(resize=32, image_size=32), AutoencoderConfig()
    latents, cache = LatentCacheConfig(views=1), LatentCache(root / "latents")
    fill_cache(cache, manifest=manifest, images=images, geometry=geometry,
               autoencoder=autoencoder, config=latents)  # fmt: skip
    judged = EvaluationConfig(batch_size=16)
    return AblationData(manifest, images, cache, geometry, autoencoder, latents, judged)


class Work:
    """Counts trainings and passes over the test images."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.trained: list[TrainingConfig] = []
        self.passes = 0
        self.dies_at: int | None = None
        set_up_training, record = setup.set_up_training, discrepancy_cache.cache_discrepancies

        def counted_run(*arguments: Any, config: TrainingConfig, **options: Any) -> Any:
            if len(self.trained) == self.dies_at:
                raise KeyboardInterrupt
            self.trained.append(config)
            return set_up_training(*arguments, config=config, **options)

        def counted_pass(*arguments: Any) -> Any:
            self.passes += 1
            return record(*arguments)

        patch.setattr(setup, "set_up_training", counted_run)
        patch.setattr(discrepancy_cache, "cache_discrepancies", counted_pass)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    return Work(monkeypatch)


def test_every_network_is_trained_once_and_resumed_where_it_was_interrupted(
    tmp_path: Path, data: AblationData, work: Work
) -> None:
    store, config = AblationStore(tmp_path / "ablation"), ablation()
    work.dies_at = 1
    with pytest.raises(KeyboardInterrupt):
        run_ablation(data, store, config, TRAINING, SCORING)
    assert [(t.steps, t.epochs, t.corruption.max_mask_ratio) for t in work.trained] == [
        (3, None, 0.7)
    ]
    assert work.passes == 2  # two steps and three; fusions need none of their own
    work.dies_at = None
    outcome = run_ablation(data, store, config, TRAINING, SCORING)
    assert [t.corruption.max_mask_ratio for t in work.trained] == [0.7, 0.2]
    assert work.passes == 3
    assert run_ablation(data, store, config, TRAINING, SCORING) == outcome
    assert (len(work.trained), work.passes) == (2, 3)
    assert len(list((store.path / "networks").iterdir())) == 1  # the base's
    summary = summarise(outcome, config.seeds)
    rows = {(row["study"], row["variant"]): row for row in summary["rows"]}
    assert {key for key, row in rows.items() if row["is_base"]} == {
        ("steps", "2"),
        ("masks", "0.7"),
    }
    assert "no posterior" in rows["posterior", "mean"]["skipped"]
    for row in rows.values():
        if not row["skipped"]:
            assert 0 <= row["metrics"]["image_auroc"]["mean"] <= 1
            assert 0 <= row["categories"]["nut"]["pixel_aupro"] <= 1
    pixel, latent = (rows["fusion", name]["metrics"]["pixel_ap"] for name in ("pixel", "latent"))
    assert pixel["mean"] != latent["mean"]
    table = render_table(summary)
    assert "## fusion" in table
    assert "2 (base)" in table
    assert "mean: skipped, the autoencoder has no posterior" in table
    assert len(draw(summary).axes) == 3 * 3  # studies not skipped, metrics


def test_a_variant_from_the_cache_has_the_figures_of_the_model_itself(
    tmp_path: Path, data: AblationData, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, measure = [], discrepancy_cache.measure_from_cache

    def noted(model: Any, *rest: Any) -> Any:
        models.append(model)
        return measure(model, *rest)

    monkeypatch.setattr(discrepancy_cache, "measure_from_cache", noted)
    config = ablation(studies=STUDIES[1:2])
    outcome = run_ablation(data, AblationStore(tmp_path), config, TRAINING, SCORING)
    for model, (variant, results) in zip(models, outcome, strict=True):
        predictions = PredictionStore(tmp_path / "direct" / variant.variant.name)
        score_images(model, data.manifest, data.images, predictions, data.evaluation)
        direct = plain_metrics(predictions, data.images, data.evaluation)
        for category, metrics in results[0]["categories"].items():
            for name, value in metrics.items():
                # Both see the same images in other batches, which round differently.
                assert value == pytest.approx(direct["categories"][category][name], abs=1e-4), name


def test_a_variant_in_bfloat16_leaves_the_others_in_float32(
    tmp_path: Path, data: AblationData, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, record = [], discrepancy_cache.cache_discrepancies

    def noted(model: Any, *rest: Any) -> Any:
        seen.append((model.config.num_inference_steps, model.unet.dtype, model.vae.dtype))
        return record(model, *rest)

    monkeypatch.setattr(discrepancy_cache, "cache_discrepancies", noted)
    variants = [
        {"name": "bf16", "scoring": {"bfloat16": True}},
        {"name": "three", "scoring": {"num_inference_steps": 3}},
    ]
    config = ablation(studies=[{"name": "precision", "variants": variants}])
    run_ablation(data, AblationStore(tmp_path), config, TRAINING, SCORING)
    half, full = torch.bfloat16, torch.float32
    assert seen == [(2, full, full), (2, half, half), (3, full, full)]


def test_other_initial_weights_at_the_same_path_are_another_network(
    tmp_path: Path, data: AblationData
) -> None:
    file = tmp_path / "last.safetensors"
    training = TRAINING.model_copy(update={"init_from": str(file)})
    file.write_bytes(b"some weights")
    first = data.network_identity(training)
    file.write_bytes(b"others")
    assert data.network_identity(training) != first


def test_several_seeds_give_a_spread_and_a_paired_change(
    tmp_path: Path, data: AblationData, work: Work
) -> None:
    config = ablation(seeds=[0, 7], studies=STUDIES[1:2])
    outcome = run_ablation(data, AblationStore(tmp_path), config, TRAINING, SCORING)
    assert [training.seed for training in work.trained] == [0, 7]
    row = summarise(outcome, config.seeds)["rows"][1]
    base, other = ([r["mean"]["pixel_ap"] for r in results] for _, results in
                   (outcome[0], outcome[2]))  # fmt: skip
    assert row["metrics"]["pixel_ap"]["mean"] == pytest.approx(np.mean(other))
    assert row["metrics"]["pixel_ap"]["std"] == pytest.approx(np.std(other, ddof=1))
    assert row["metrics"]["pixel_ap"]["change"] == pytest.approx(np.mean(other) - np.mean(base))
    assert "±" in render_table(summarise(outcome, config.seeds))


def test_what_decides_a_result_and_a_network_is_in_their_names(data: AblationData) -> None:
    job = plan(ablation(), TRAINING, SCORING, has_posterior=False)[0].jobs[0]
    for split, decides_network in (("test", False), ("train", True), ("val", True)):
        digests = data.manifest["sha256"].where(data.manifest["split"] != split, "other")
        changed = replace(data, manifest=data.manifest.assign(sha256=digests))
        assert changed.result_identity(job) != data.result_identity(job)
        same = changed.network_identity(job.training) == data.network_identity(job.training)
        assert same is not decides_network
    faster = replace(data, evaluation=EvaluationConfig(batch_size=9))
    assert faster.result_identity(job) == data.result_identity(job)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ({"training": {"stepz": 3}}, r"'x': training\.stepz is 3; there is no such parameter"),
        (
            {"training": {"corruption": {"mask": 1}}},
            r"'x': training\.corruption\.mask is 1; there is no such",
        ),
        (
            {"scoring": {"discrepancy": {"fuzion": "pixel"}}},
            r"'x': scoring\.discrepancy\.fuzion is 'pixel'; there is no",
        ),
        (
            {"training": {"corruption": {"max_mask_ratio": 2}}},
            r"training: max_mask_ratio is 2",
        ),
        (
            {"training": {"corruption": {"patch_probabilities": [-1, 1, 1, 1, 1]}}},
            r"'x': training: patch_probabilities are -1\.0,",
        ),
        (
            {"training": {"corruption": {"patch_sizes": [3, 9], "patch_probabilities": [1, 0]}}},
            r"none of the patch sizes 3, \d+ .* divides a latent of side",
        ),
        (
            {"scoring": {"discrepancy": {"latent_sigma": float("nan")}}},
            r"'x': scoring: discrepancy\.latent_sigma is nan",
        ),
        ({"scoring": {"num_inference_steps": 6}}, r"'x': scoring.num_inference_steps is 6"),
        ({"training": {"init_from": "no.pt"}}, r"init_from is no\.pt, where there is nothing"),
        ({"training": {"init_from": "champion"}}, r"init_from is champion, which can change"),
    ],
)
def test_a_wrong_variant_is_named_before_anything_is_trained(
    tmp_path: Path, data: AblationData, work: Work, variant: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        config = ablation(studies=[*STUDIES, {"name": "s", "variants": [{"name": "x", **variant}]}])
        run_ablation(data, AblationStore(tmp_path), config, TRAINING, SCORING)
    assert not work.trained


def test_names_must_tell_variants_apart() -> None:
    with pytest.raises(ConfigurationError, match="study 's' has 'a' twice"):
        ablation(studies=[{"name": "s", "variants": [{"name": "a"}, {"name": "a"}]}])
    with pytest.raises(ConfigurationError, match="seeds has 1 twice"):
        ablation(seeds=[1, 1])


def test_test_images_that_tell_nothing_apart_are_refused_before_training(
    tmp_path: Path, data: AblationData, work: Work
) -> None:
    good = replace(data, manifest=data.manifest[data.manifest["label"] == "good"])
    with pytest.raises(DataError, match="good and defective images"):
        run_ablation(good, AblationStore(tmp_path), ablation(), TRAINING, SCORING)
    nut = (data.manifest["category"] == "nut") & (data.manifest["split"] == "train")
    with pytest.raises(DataError, match="'nut' has test images but no good train image"):
        run_ablation(replace(data, manifest=data.manifest[~nut]), AblationStore(tmp_path),
                     ablation(), TRAINING, SCORING)  # fmt: skip
    assert not work.trained


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    store = AblationStore(tmp_path)
    store.save_result("a", {"mean": {}}, {})
    assert store.result("a") == {"mean": {}}
    (tmp_path / "results" / "a.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"results/a\.json is damaged .* delete it"):
        store.result("a")


@pytest.mark.parametrize("environment", ["base", "mvtec", "visa"])
@pytest.mark.parametrize("has_posterior", [True, False])
def test_the_shipped_studies_fit_every_environment(environment: str, has_posterior: bool) -> None:
    shipped = yaml.safe_load((CONF / "base" / "parameters_ablation.yml").read_text())
    assert set(shipped) == {"ablation"}
    parameters = yaml.safe_load((CONF / environment / "parameters_training.yml").read_text())
    training = TrainingConfig.model_validate(parameters["training"])
    scoring = ScoringConfig.model_validate(parameters["scoring"])
    config = AblationConfig.model_validate(shipped["ablation"])
    planned = plan(config, training, scoring, has_posterior=has_posterior)
    assert {v.study for v in planned if v.skipped} == (
        set() if has_posterior else {"latents in training"}
    )
    asked = {study.name for study in config.studies if any(v.training for v in study.variants)}
    assert {v.study for v in planned if v.jobs[0].training != planned[0].jobs[0].training} <= asked
