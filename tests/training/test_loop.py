"""Training: it learns, it resumes exactly, it refuses what would be wrong."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from decodiff_pipeline.data.latent_cache import LatentCache, LatentMoments
from decodiff_pipeline.errors import CheckpointError, ModelError
from decodiff_pipeline.training import objective
from decodiff_pipeline.training.batches import LatentBatches
from decodiff_pipeline.training.muon import orthogonalise
from decodiff_pipeline.training.schedule import learning_rate
from decodiff_pipeline.training.state import new_optimizers, trained_network

if TYPE_CHECKING:
    from collections.abc import Callable

    from decodiff_pipeline.training.loop import TrainingRun

    KilledAt = Callable[[TrainingRun, int], None]
    TinyRun = Callable[..., TrainingRun]


def state_digest(training: TrainingRun) -> str:
    """SHA-256 over weights, average, optimiser and logged losses of the last checkpoint."""
    checkpoint = training.store.latest()
    assert checkpoint is not None
    total = hashlib.sha256()
    for name, tensor in sorted(checkpoint.tensors.items()):
        total.update(name.encode() + tensor.numpy().tobytes())
    rows = [{k: v for k, v in row.items() if k != "images_per_second"} for row in checkpoint.log]
    total.update(json.dumps([checkpoint.step, rows]).encode())
    return total.hexdigest()


@pytest.fixture
def whole(tiny_run: TinyRun) -> Callable[..., str]:
    """Digest of a training that nothing interrupts."""

    def digest(**options: Any) -> str:
        training = tiny_run("whole", **options)
        training.run()
        return state_digest(training)

    return digest


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulation": 2},
        {"log_every": 3},
        {"optimizer": "muon"},
        {"optimizer": "muon", "bfloat16": True},
    ],
    ids=str,
)
def test_resumed_equals_uninterrupted(
    tiny_run: TinyRun,
    whole: Callable[..., str],
    options: dict[str, Any],
    killed_at: KilledAt,
) -> None:
    killed_at(tiny_run(**options), 3)
    killed_at(tiny_run(**options), 5)
    resumed = tiny_run(**options)
    resumed.run()
    assert state_digest(resumed) == whole(**options)
    every = options.get("log_every", 1)
    assert [row["step"] for row in resumed.log] == list(range(every, 7, every))


def test_muon_takes_matrices_and_convolutions_but_no_embedding(tiny_run: TinyRun) -> None:
    training = tiny_run(optimizer="muon")
    adamw, muon = (
        {weight for group in each.param_groups for weight in group["params"]}
        for each in new_optimizers(training.unet, training.config, bfloat16=False)
    )
    named = dict(training.unet.named_parameters())
    assert adamw | muon == set(named.values())
    assert not adamw & muon
    assert {name for name, weight in named.items() if weight in adamw and weight.ndim > 1} == {
        "category_embedding.weight"
    }
    assert all(weight.ndim > 1 for weight in muon)


@pytest.mark.parametrize("shape", [(16, 144), (144, 16), (16, 16)], ids=str)
@pytest.mark.parametrize(
    ("precision", "tolerance"), [(torch.float32, 1e-3), (torch.bfloat16, 0.15)], ids=str
)
def test_muon_orthogonalises(
    shape: tuple[int, int], precision: torch.dtype, tolerance: float
) -> None:
    """As the quintic on each singular value does, for any ratio of the sides."""
    random = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(n, 16, generator=random))[0] for n in shape)
    values = torch.logspace(0, -4, 16)
    matrix = left @ values.diag() @ right.T
    expected = values.double() / values.norm()
    for _ in range(5):
        expected = 3.4445 * expected - 4.7750 * expected**3 + 2.0315 * expected**5
    found = orthogonalise(matrix[None], precision)[0]
    wanted = left @ expected.float().diag() @ right.T
    assert (found - wanted).abs().max() < tolerance


def test_a_training_from_before_a_choice_existed_goes_on(
    tiny_run: TinyRun, killed_at: KilledAt
) -> None:
    killed_at(tiny_run(), 3)
    assert "optimizer" not in tiny_run().identity
    assert "device" not in tiny_run().identity["corruption"]
    with pytest.raises(CheckpointError, match=r"corruption\.device was cpu and is training"):
        tiny_run(corruption={"device": "training"}).run()
    with pytest.raises(CheckpointError, match="optimizer was adamw and is muon"):
        tiny_run(optimizer="muon").run()
    tiny_run(optimizer="adamw").run()


def test_a_kill_while_saving_leaves_the_checkpoint_before(
    tiny_run: TinyRun,
    whole: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    training = tiny_run()
    fsync = os.fsync

    def dying_fsync(descriptor: int) -> None:
        if training.step == 4:
            raise KeyboardInterrupt  # like a kill, no `except Exception` sees it
        fsync(descriptor)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "fsync", dying_fsync)
        training.run()
    assert training.store.steps() == [2]
    assert "after step 4 of 6; the same command goes on from step 2" in caplog.text
    resumed = tiny_run()
    resumed.run()
    assert state_digest(resumed) == whole()


def test_the_loss_falls_and_the_average_is_what_is_returned(tiny_run: TinyRun) -> None:
    training = tiny_run(
        steps=40, learning_rate=5e-3, dropout=0.0, checkpoint_every=40, validate_every=10
    )
    training.run()
    held_out = [row["held_out_loss"] for row in training.log if "held_out_loss" in row]
    assert held_out[-1] < held_out[0]
    returned = trained_network(training.store)
    for ours, stored in zip(training.unet.parameters(), returned.parameters(), strict=True):
        assert torch.equal(ours.cpu(), stored)


def test_a_finished_run_is_not_trained_again(tiny_run: TinyRun) -> None:
    training = tiny_run()
    training.run()
    before = state_digest(training)
    again = tiny_run()
    again._train_step = pytest.fail  # type: ignore[method-assign, assignment]
    again.run()
    assert state_digest(again) == before


def test_other_parameters_do_not_resume_an_unfinished_run(
    tiny_run: TinyRun, killed_at: KilledAt
) -> None:
    killed_at(tiny_run(), 3)
    other = tiny_run(learning_rate=2e-3)
    with pytest.raises(CheckpointError, match=r"learning_rate was 0.001 and is 0.002;.*never"):
        other.run()
    assert other.store.steps() == [2]
    tiny_run(learning_rate=2e-3, resume="never").run()
    latest = other.store.latest()
    assert latest is not None
    assert latest.finished


def test_a_run_that_nobody_watches_goes_on_or_starts_over(
    tiny_run: TinyRun,
    whole: Callable[..., str],
    killed_at: KilledAt,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    killed_at(tiny_run(), 3)
    killed_at(tiny_run(resume="if_same"), 5)
    assert "resuming at step 2 of 6" in caplog.text
    other = tiny_run(learning_rate=2e-3, resume="if_same")
    other.run()
    assert "learning_rate was 0.001 and is 0.002; starting over" in caplog.text
    assert state_digest(other) == whole(learning_rate=2e-3)


def test_a_finished_training_stays_until_the_next_has_a_checkpoint(
    tiny_run: TinyRun, killed_at: KilledAt
) -> None:
    training = tiny_run()
    training.run()
    killed_at(tiny_run(steps=5), 1)
    assert training.store.steps() == [4, 6]
    killed_at(tiny_run(steps=5), 3)
    assert training.store.steps() == [2]
    following = tiny_run(steps=5)
    following.run()
    assert [row["step"] for row in following.log] == [1, 2, 3, 4, 5]


def test_what_a_killed_run_left_half_written_is_removed(tiny_run: TinyRun) -> None:
    training = tiny_run()
    training.run()
    folder = training.store.path
    (folder / ".checkpoint-00000008.safetensors.1.tmp").write_bytes(b"half")
    (folder / "checkpoint-00000008.safetensors").write_bytes(b"without its record")
    tiny_run().run()
    assert sorted(file.name for file in folder.iterdir()) == [
        "checkpoint-00000004.json", "checkpoint-00000004.safetensors",
        "checkpoint-00000006.json", "checkpoint-00000006.safetensors", "log.jsonl",
    ]  # fmt: skip


def test_how_often_to_save_may_change_on_resuming(
    tiny_run: TinyRun, whole: Callable[..., str], killed_at: KilledAt
) -> None:
    killed_at(tiny_run(), 3)
    resumed = tiny_run(checkpoint_every=1, keep_checkpoints=5)
    resumed.run()
    assert state_digest(resumed) == whole()


def test_a_damaged_checkpoint_is_named_with_the_way_back(tiny_run: TinyRun) -> None:
    training = tiny_run()
    training.run()
    file = training.store.path / "checkpoint-00000006.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{file.name} is damaged .*go on from step 4"):
        tiny_run().run()


def test_a_loss_that_is_no_number_names_the_last_good_checkpoint(
    tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = tiny_run()
    loss = objective.deviation_loss

    def breaking_loss(*args: Any) -> torch.Tensor:
        return loss(*args) * (math.nan if training.step == 5 else 1)

    monkeypatch.setattr(objective, "deviation_loss", breaking_loss)
    with pytest.raises(ModelError, match=r"nan at step 6; .*checkpoints is that of step 4; lower"):
        training.run()
    latest = training.store.latest()
    assert latest is not None
    assert all(tensor.isfinite().all() for tensor in latest.tensors.values())


@pytest.mark.parametrize("clip", [1.0, None])
def test_a_gradient_that_is_no_number_changes_no_weight(
    tiny_run: Callable[..., TrainingRun], clip: float | None
) -> None:
    training = tiny_run(gradient_clip=clip)

    def overflow(gradient: torch.Tensor) -> torch.Tensor:
        return gradient * (math.inf if training.step == 3 else 1)

    training.unet.category_embedding.weight.register_hook(overflow)
    with pytest.raises(ModelError, match=r"gradient's norm is (nan|inf) at step 4; .* step 2; lo"):
        training.run()
    assert all(parameter.isfinite().all() for parameter in training.unet.parameters())


def test_the_log_can_be_followed_and_is_the_same_after_resuming(
    tiny_run: Callable[..., TrainingRun], killed_at: KilledAt
) -> None:
    def losses(training: TrainingRun) -> list[float]:
        lines = (training.store.path / "log.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines]

    whole = tiny_run("whole")
    whole.run()
    broken = tiny_run("broken")
    killed_at(broken, 5)
    assert losses(broken) == losses(whole)[:5]  # one more than the checkpoint of step 4 knows
    resumed = tiny_run("broken")
    killed_at(resumed, 4)
    assert losses(resumed) == losses(whole)[:4]
    tiny_run("broken").run()
    assert losses(resumed) == losses(whole) == [row["loss"] for row in whole.log]


def test_only_the_leaf_that_changed_is_shown(
    tiny_run: Callable[..., TrainingRun], killed_at: KilledAt
) -> None:
    killed_at(tiny_run(), 3)
    other = tiny_run(corruption={"max_mask_ratio": 0.5})
    with pytest.raises(
        CheckpointError, match=r"rs: corruption\.max_mask_ratio was 0\.7 and is 0\.5;"
    ):
        other.run()


def test_a_checkpoint_from_before_a_parameter_existed_goes_on(
    tiny_run: Callable[..., TrainingRun], killed_at: KilledAt
) -> None:
    killed_at(tiny_run(), 3)
    record = tiny_run().store.path / "checkpoint-00000002.json"
    content = json.loads(record.read_text())
    for name in ("total", "best"):
        del content[name]
    for name in ("patience", "monitor", "weights", "cosine_length", "max_minutes"):
        del content["identity"][name]
    record.write_text(json.dumps(content))
    resumed = tiny_run()
    resumed.run()
    assert [row["step"] for row in resumed.log] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(CheckpointError, match=r"cosine_length was 1\.0 and is 1\.5"):
        record.with_name("checkpoint-00000006.json").unlink()
        tiny_run(cosine_length=1.5).run()


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing() -> None:
    """The short form of a benchmark: processes that are really killed."""
    command = [sys.executable, "-m", "benchmarks.kill_and_resume", "--kills", "3", "--steps", "8"]
    root = Path(__file__).parents[2]
    ran = subprocess.run(command, check=False, capture_output=True, text=True, cwd=root)
    assert ran.returncode == 0, ran.stderr
    record = json.loads(ran.stdout)
    assert record["kills"] >= 3
    assert record["resumes"] >= 1
    assert record["sha256_equal"]
    assert record["losses_equal"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_keeps_the_last_checkpoint(tiny_run: TinyRun) -> None:
    training = tiny_run()
    small = training.store.path
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=10m", "tmpfs", str(small)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this machine does not allow mounting a tmpfs")
    try:
        with pytest.raises(CheckpointError, match=r"cannot be written .* goes on from step 2"):
            training.run()
        latest = training.store.latest()
        assert latest is not None
        assert latest.step == 2
    finally:
        # lazily: a tensor of the last checkpoint may still be mapped
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_every_image_is_seen_once_an_epoch(tiny_run: TinyRun) -> None:
    batches = tiny_run().batches
    images, parts = len(batches.category_ids), len(batches)
    for epoch in range(3):
        seen = torch.cat([batches.batch(parts * epoch + part).latents for part in range(parts)])
        assert len(seen) == len(torch.unique(seen, dim=0)) == images
    assert not torch.equal(batches.batch(0).latents, batches.batch(parts).latents)


def test_latents_are_sampled_from_the_posterior(tmp_path: Path) -> None:
    cache = LatentCache(tmp_path / "cache")
    mean = torch.rand(6, 4, 8, 8, generator=torch.Generator().manual_seed(0)) + 1
    keys = [str(number) for number in range(len(mean))]
    cache.append(keys, LatentMoments(mean, mean.clone()), "float32")
    batches = LatentBatches(cache.reader(keys), [0] * 6, views=1, batch_size=6, seed=0)
    sampled = batches.batch(0).latents
    assert torch.equal(sampled, batches.batch(0).latents)
    batches.sample_posterior = False
    mean = batches.batch(0).latents
    assert ((sampled - mean).abs() / mean).median() == pytest.approx(0.67, abs=0.1)


def test_small_categories_are_drawn_more_often_where_categories_are_balanced(
    tmp_path: Path,
) -> None:
    cache = LatentCache(tmp_path / "cache")
    mean = torch.zeros(100, 4, 8, 8)
    keys = [str(number) for number in range(len(mean))]
    cache.append(keys, LatentMoments(mean, mean[:, :0]), "float32")
    ids = [0] * 80 + [1] * 20

    def drawn(balance: float) -> torch.Tensor:
        batches = LatentBatches(
            cache.reader(keys), ids, views=1, batch_size=50, seed=0, category_balance=balance
        )
        numbers = range(20)  # 10 epochs
        assert torch.equal(batches.batch(7).category_ids, batches.batch(7).category_ids)
        return torch.cat([batches.batch(number).category_ids for number in numbers]).bincount()

    assert drawn(0.0).tolist() == [800, 200]
    assert drawn(0.5)[1].item() == pytest.approx(1000 / 3, abs=60)
    assert drawn(1.0)[1].item() == pytest.approx(500, abs=60)


def test_the_learning_rate_rises_and_falls_to_zero() -> None:
    rates = [learning_rate(step, 100, peak=1.0, warmup_steps=10) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[10] == pytest.approx(1.0)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0, abs=1e-3)
    end = learning_rate(99, 100, peak=2.0, warmup_steps=10, final=0.25)
    assert end == pytest.approx(0.5, abs=1e-2)


def test_the_released_schedule_ends_at_a_quarter_of_its_peak() -> None:
    """A half cosine over 1.5 times the length breaks off at cos(2π/3) = -1/2."""
    steps = 100_000
    end = learning_rate(steps - 1, steps, peak=1.0, warmup_steps=0, cosine_length=1.5)
    assert end == pytest.approx((1 + math.cos(2 * math.pi / 3)) / 2, abs=1e-4)
    warmed = learning_rate(steps - 1, steps, peak=1.0, warmup_steps=1250, cosine_length=1.5)
    assert warmed == pytest.approx((1 + math.cos(math.pi * 790 / 1190)) / 2, abs=1e-4)
    assert warmed == pytest.approx(0.25, abs=0.005)
