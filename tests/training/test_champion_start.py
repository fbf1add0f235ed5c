"""Starting from the champion: what is taken over, and when there is nothing left to train."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch

from decodiff_pipeline.data.latent_cache import LatentCache, LatentMoments
from decodiff_pipeline.deco.unet import DeCoDiffUNet, build_unet
from decodiff_pipeline.errors import ConfigurationError, ModelError
from decodiff_pipeline.training.batches import LatentBatches
from decodiff_pipeline.training.champion import Champion
from decodiff_pipeline.training.checkpoints import CheckpointStore
from decodiff_pipeline.training.config import TrainingConfig
from decodiff_pipeline.training.identity import differences
from decodiff_pipeline.training.initial_weights import check_initial_weights, initialise_weights
from decodiff_pipeline.training.loop import TrainingRun
from decodiff_pipeline.training.state import trained_network
from decodiff_pipeline.training.validation import Validation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from decodiff_pipeline.deco.weights import AutoencoderConfig

OWN = {"latent_mean": [0.0] * 4, "latent_std": [1.0] * 4}
THEIRS = {"latent_mean": [0.5, 0.0, -1.0, 2.0], "latent_std": [0.4, 0.5, 0.3, 2.5]}


@dataclass
class Served:
    """A registry with at most one champion, which counts how often it is asked."""

    champion: Champion | None = None
    model: str = "decodiff-x"
    asked: int = 0

    def fetch(self) -> Champion | None:
        """The champion."""
        self.asked += 1
        return self.champion


@pytest.fixture
def promote(tmp_path: Path, tiny_autoencoder: AutoencoderConfig) -> Callable[..., Champion]:
    """Makes a network the champion, with the autoencoder of these tests."""
    numbers = iter(range(1, 9))

    def champion(unet: DeCoDiffUNet) -> Champion:
        number = str(next(numbers))
        folder = tmp_path / "registry" / number
        unet.save_pretrained(folder / "unet")
        shutil.copytree(tiny_autoencoder.source, folder / "vae")
        return Champion("decodiff-x", number, "ab" * 32, folder)

    return champion


def network(
    *categories: str,
    seed: int = 1,
    preset: str = "nano",
    statistics: Any = THEIRS,
    side: int = 8,
) -> DeCoDiffUNet:
    torch.manual_seed(seed)
    unet = build_unet(preset, categories, side, 4, 0.0)
    unet.register_to_config(**statistics)
    return unet


def config(**options: Any) -> TrainingConfig:
    return TrainingConfig.model_validate({
        "preset": "nano", "steps": 2, "batch_size": 2, "dropout": 0.0, "bfloat16": False,
        "validate_every": 9, "log_every": 1, "checkpoint_every": 9, "progress_bar": False,
        "standardise_latents": True, "ema_decay": 0.5, "threads": 1,
        "init_from": "champion", **options,
    })  # fmt: skip


@pytest.fixture
def start(tmp_path: Path, tiny_autoencoder: AutoencoderConfig) -> Callable[..., Any]:
    """Begins a training of a network with some categories; returns it and the record."""

    def started(served: Served | None, *categories: str, **options: Any) -> Any:
        unet = network(*categories, seed=7, statistics=OWN)
        added, record = initialise_weights(
            unet, {}, config(**options), store=CheckpointStore(tmp_path / "checkpoints"),
            champions=served, autoencoder=tiny_autoencoder,
        )  # fmt: skip
        return unet, added, record

    return started


def test_an_added_category_moves_no_row_and_no_weight_of_the_others(
    start: Callable[..., Any], promote: Callable[..., Champion], caplog: pytest.LogCaptureFixture
) -> None:
    served = Served(promote(network("mono", "poly")))
    theirs = network("mono", "poly").state_dict()
    with caplog.at_level(logging.INFO):
        unet, added, record = start(served, "alloy", "mono", "nut", "poly")
    ours = unet.state_dict()
    rows = "category_embedding.weight"
    assert torch.equal(ours[rows][[1, 3]], theirs[rows])
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs if name != rows)
    assert "category_embedding.weight[alloy], category_embedding.weight[nut]" in caplog.text
    assert "from version 1 of decodiff-x, the champion" in caplog.text
    assert added["channel_statistics"] == THEIRS == {name: unet.config[name] for name in THEIRS}
    assert added["init_from_sha256"] == record["sha256"]
    assert record["kind"] == "champion"
    assert (record["model"], record["version"]) == ("decodiff-x", "1")


def test_categories_without_images_are_said_to_be_lost(
    start: Callable[..., Any], promote: Callable[..., Champion], caplog: pytest.LogCaptureFixture
) -> None:
    start(Served(promote(network("mono", "nut", "poly"))), "nut", "screw")
    assert "the champion knows mono, poly, of which there are no training images" in caplog.text


def test_the_first_training_starts_from_scratch(
    start: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        unet, added, record = start(Served(), "mono")
    assert torch.equal(unet.unet.conv_in.weight, network("mono", seed=7).unet.conv_in.weight)
    assert added == {"channel_statistics": OWN}
    assert record["kind"] == "scratch"
    assert record["reason"] == "decodiff-x has no champion yet"
    assert "from scratch: decodiff-x has no champion yet" in caplog.text


@pytest.mark.parametrize(
    ("champion", "options", "reason"),
    [
        ({"preset": "XS"}, {}, "its training.preset is XS instead of nano"),
        ({}, {"standardise_latents": False}, "its training.standardise_latents is true"),
        ({"side": 16}, {}, "its latents are 4x16x16 instead of 4x8x8"),
    ],
)
def test_a_champion_of_another_kind_is_not_taken_and_it_is_said_why(
    start: Callable[..., Any],
    promote: Callable[..., Champion],
    caplog: pytest.LogCaptureFixture,
    champion: dict[str, Any],
    options: dict[str, Any],
    reason: str,
) -> None:
    unet, added, record = start(Served(promote(network("mono", **champion))), "mono", **options)
    assert torch.equal(unet.unet.conv_in.weight, network("mono", seed=7).unet.conv_in.weight)
    assert "init_from_sha256" not in added
    assert record["kind"] == "scratch"
    said = [each for each in caplog.records if each.name.startswith("decodiff_pipeline")]
    warnings = [each.getMessage() for each in said if each.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert reason in warnings[0] == f"the training starts from scratch: {record['reason']}"


def test_latents_of_another_autoencoder_are_another_kind(
    start: Callable[..., Any], promote: Callable[..., Champion]
) -> None:
    from safetensors.torch import load_file, save_file

    champion = promote(network("mono"))
    file = champion.folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors[min(tensors)] += 1
    save_file(tensors, file)
    _, _, record = start(Served(champion), "mono")
    assert "its autoencoder is not " in record["reason"]


def test_where_nobody_looks_the_champion_up_it_is_refused(start: Callable[..., Any]) -> None:
    with pytest.raises(ConfigurationError, match="is champion, which is not looked up here"):
        start(None, "mono")


def test_scratch_is_what_null_was() -> None:
    assert config(init_from="scratch") == config(init_from=None)


# --- when there is nothing left to train


@pytest.fixture
def prepared(tmp_path: Path, tiny_autoencoder: AutoencoderConfig) -> Callable[..., TrainingRun]:
    """Makes a run of ``a`` and ``b`` on four latents; ``data`` stands for what they are."""
    keys = [str(number) for number in range(4)]
    cache = LatentCache(tmp_path / "cache")
    mean = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    cache.append(keys, LatentMoments(mean, mean[:, :0]), "float32")

    def run(served: Served, data: str = "monday", folder: str = "run", **options: Any) -> Any:
        chosen = config(**options)
        unet = network("a", "b", seed=chosen.seed, statistics=OWN)
        batches = LatentBatches(cache.reader(keys), [0, 1, 0, 1], views=1, batch_size=2, seed=0)
        store = CheckpointStore(tmp_path / folder)
        identity = {**chosen.identity(), "latents_sha256": data, "categories": ["a", "b"],
                    "latent_shape": [4, 8, 8]}  # fmt: skip
        added, record = initialise_weights(
            unet, identity, chosen, store=store, champions=served, autoencoder=tiny_autoencoder
        )
        validation = Validation([], chosen.corruption)
        return TrainingRun(unet, batches, validation, chosen, store, identity | added, record)

    return run


def steps_taken(run: TrainingRun) -> int:
    taken, train_step = [], run._train_step

    def counted() -> int:
        taken.append(1)
        return train_step()

    run._train_step = counted  # type: ignore[method-assign]
    run.run()
    return len(taken)


@pytest.mark.parametrize("first", ["champion", "scratch"])
def test_a_training_whose_result_is_the_champion_is_not_repeated(
    first: str, prepared: Callable[..., TrainingRun], promote: Callable[..., Champion]
) -> None:
    served = Served()
    run = prepared(served, init_from=first)
    assert steps_taken(run) == 2
    served.champion = promote(trained_network(run.store))
    again = prepared(served)
    assert again.start == run.start
    assert steps_taken(again) == 0
    changed = prepared(served, data="tuesday")
    assert (changed.start["kind"], changed.start["version"]) == ("champion", "1")
    assert steps_taken(changed) == 2
    served.champion = promote(trained_network(changed.store))
    finished = prepared(served, data="tuesday")
    assert finished.start["version"] == "1"
    assert steps_taken(finished) == 0
    assert steps_taken(prepared(served, data="tuesday", resume="never")) == 2


def test_a_scratch_training_is_repeated_from_a_champion_that_is_another_model(
    prepared: Callable[..., TrainingRun], promote: Callable[..., Champion]
) -> None:
    assert steps_taken(prepared(Served(), init_from="scratch")) == 2
    run = prepared(Served(promote(network("a", "b"))))
    assert run.start["kind"] == "champion"
    assert steps_taken(run) == 2


def test_an_interrupted_training_goes_on_whoever_is_champion_by_now(
    prepared: Callable[..., TrainingRun],
    promote: Callable[..., Champion],
    killed_at: Callable[[TrainingRun, int], None],
) -> None:
    served = Served(promote(network("a", "b", seed=3)))
    whole = prepared(served, folder="whole").run().state_dict()
    killed_at(prepared(served, checkpoint_every=1), 1)
    served.champion, served.asked = promote(network("a", "b", seed=4)), 0
    resumed = prepared(served)
    assert resumed.start["version"] == "1"
    assert steps_taken(resumed) == 1
    assert served.asked == 0
    assert all(
        torch.equal(tensor, whole[name]) for name, tensor in resumed.unet.state_dict().items()
    )
    assert {name: resumed.unet.config[name] for name in THEIRS} == THEIRS


# --- before anything else is done


def test_a_preset_that_differs_is_said_before_any_work(
    promote: Callable[..., Champion],
    tiny_autoencoder: AutoencoderConfig,
    caplog: pytest.LogCaptureFixture,
) -> None:
    champion = promote(network("mono"))
    check_initial_weights(config(preset="XS"), Served(champion), tiny_autoencoder)
    assert "will start from scratch: version 1 of decodiff-x" in caplog.text
    assert "its training.preset is nano instead of XS" in caplog.text
    with pytest.raises(ModelError, match="is nano instead of XS; train as it was trained, or set"):
        check_initial_weights(
            config(preset="XS", init_from=str(champion.folder)), None, tiny_autoencoder
        )
    check_initial_weights(config(init_from=str(champion.folder)), None, tiny_autoencoder)


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        ("chamption", ConfigurationError, "init_from is chamption, where there is nothing"),
        (".", ModelError, "holds no network"),
    ],
)
def test_a_path_without_weights_is_said_before_any_work(
    tmp_path: Path,
    tiny_autoencoder: AutoencoderConfig,
    path: str,
    error: type[Exception],
    message: str,
) -> None:
    where = path if path != "." else str(tmp_path)
    with pytest.raises(error, match=message):
        check_initial_weights(config(init_from=where), None, tiny_autoencoder)


def test_the_weights_count_and_not_their_path() -> None:
    a, b = (
        TrainingConfig(steps=1, init_from=path).identity() for path in ("last.pt", "moved/last.pt")
    )
    assert not differences({**a, "init_from_sha256": "1"}, {**b, "init_from_sha256": "1"})
    changed = differences(a, {**b, "init_from_sha256": "2"})
    assert changed == ["init_from_sha256 was None and is 2"]
