"""Checkpoints and the training log on disk."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import filelock

from decodiff_pipeline.data.atomic import replacing
from decodiff_pipeline.deco.digests import file_sha256
from decodiff_pipeline.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import torch

LOG_FILE = "log.jsonl"
DRY_RUN = "dry_run"


LOWER_IS_BETTER = {"held_out_loss"}


@dataclass
class Selection:
    """The best validation of a run; part of a checkpoint."""

    step: int | None = None  # optimiser step; None before the first validation
    value: float | None = None  # the monitored metric
    waited: int = 0  # validations since then

    def update(self, monitor: str, step: int, value: float) -> bool:
        """Record a validation.

        Returns:
            Whether it is better than all before; an equal value is not.
        """
        sign = -1 if monitor in LOWER_IS_BETTER else 1
        if self.value is not None and sign * value <= sign * self.value:
            self.waited += 1
            return False
        self.step, self.value, self.waited = step, value, 0
        return True


class Checkpoint(NamedTuple):
    """State of a run after an optimiser step. Earlier versions wrote no fields with defaults."""

    step: int  # optimiser steps done
    tensors: dict[str, torch.Tensor]  # weights, averaged weights, optimiser moments, by name
    identity: dict[str, Any]  # everything that determines the result
    log: list[dict[str, Any]]  # rows of the training log up to this step
    pending: list[float]  # losses of the steps since the last row
    finished: bool  # whether this is the last step
    total: int | None = None  # planned length in steps
    best: dict[str, Any] | None = None  # fields of `Selection`; None if nothing is monitored
    start: dict[str, Any] | None = None  # record of the initial weights
    processes: int | None = None  # number of processes that trained together


class CheckpointStore:
    """A folder of checkpoints: for each a safetensors file and, written last, a JSON file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, checkpoint: Checkpoint, keep: int, obsolete: Sequence[int] = ()) -> None:
        """Write a checkpoint, then remove all but the newest ones and the best.

        Args:
            obsolete: Steps of an earlier run, whose checkpoints are removed.

        Raises:
            CheckpointError: The checkpoint cannot be written; earlier ones are kept.
        """
        from safetensors.torch import save_file

        weights, record = self._files(checkpoint.step)
        try:
            with replacing(weights) as temporary:
                save_file(checkpoint.tensors, temporary)
                sha256 = file_sha256(temporary)
            with replacing(record) as temporary:
                content = {**checkpoint._asdict(), "tensors": {"file": weights.name,
                           "sha256": sha256}}  # fmt: skip
                temporary.write_text(json.dumps(content, indent=1))
        except Exception as error:
            raise CheckpointError(
                f"checkpoint {weights} cannot be written ({error}); free some space and start "
                f"again: the run goes on from step {max(self.steps(), default=0)}"
            ) from error
        self._remove(set(obsolete) - {checkpoint.step})
        best = (checkpoint.best or {}).get("step")
        self._remove(step for step in self.steps()[:-keep] if step != best)

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, ascending."""
        return sorted(int(file.stem.split("-")[1]) for file in self.path.glob("checkpoint-*.json"))

    def latest(self, *, tensors: bool = True) -> Checkpoint | None:
        """The newest checkpoint, or None.

        Raises:
            CheckpointError: It is damaged.
        """
        steps = self.steps()
        if not steps:
            return None
        try:
            return self.load(steps[-1], tensors=tensors)
        except Exception as error:
            weights, record = self._files(steps[-1])
            raise CheckpointError(
                f"checkpoint {weights} is damaged ({error}); delete {record} to go on from "
                f"{f'step {steps[-2]}' if steps[1:] else 'the start'}"
            ) from error

    def best(self, latest: Checkpoint) -> Checkpoint:
        """The checkpoint of the best validation.

        Raises:
            CheckpointError: It is missing or damaged, or the run kept no best checkpoint.
        """
        cure = "train again with --params training.weights=best,training.resume=never"
        if latest.best is None or latest.best["step"] is None:
            raise CheckpointError(f"the training in {self.path} kept no best checkpoint; {cure}")
        step = latest.best["step"]
        try:
            return latest if step == latest.step else self.load(step)
        except Exception as error:
            raise CheckpointError(
                f"the best checkpoint {self._files(step)[0]} is missing or damaged ({error}); "
                f"{cure}"
            ) from error

    def dry_run(self, tensors: dict[str, torch.Tensor]) -> None:
        """Write tensors as :meth:`save` does, then remove them.

        Raises:
            CheckpointError: They cannot be written.
        """
        from safetensors.torch import save_file

        scratch = self.path / DRY_RUN
        try:
            with replacing(scratch) as temporary:
                save_file(tensors, temporary)
                file_sha256(temporary)
        except Exception as error:
            msg = f"{self.path} has no room for a checkpoint ({error}); free some space"
            raise CheckpointError(msg) from error
        finally:
            scratch.unlink(missing_ok=True)

    def load(self, step: int, *, tensors: bool = True) -> Checkpoint:
        """The checkpoint of a step, with or without its tensors.

        Raises:
            OSError, ValueError: It is missing or damaged.
        """
        from safetensors.torch import load_file

        weights, record = self._files(step)
        content = json.loads(record.read_text())
        if not tensors:
            return Checkpoint(**{**content, "tensors": {}})
        if file_sha256(weights) != content["tensors"]["sha256"]:
            raise ValueError("its SHA-256 is not the recorded one")
        content["tensors"] = load_file(weights)
        return Checkpoint(**content)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the folder, until the block or this process ends.

        Raises:
            CheckpointError: Another run holds the lock.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.path, os.O_RDONLY)
        try:
            with suppress(OSError):  # a shared file system may have no locks
                if not filelock.lock_descriptor(folder, blocking=False):
                    raise CheckpointError(
                        f"another run is training in {self.path}; wait for it to end, or stop it "
                        "and run the same command again to resume it"
                    )
            yield
        finally:
            os.close(folder)

    def tidy(self) -> None:
        """Remove the incomplete files of killed runs."""
        for file in (*self.path.glob(".*.tmp"), self.path / DRY_RUN):
            file.unlink(missing_ok=True)
        for weights in self.path.glob("checkpoint-*.safetensors"):
            if not weights.with_suffix(".json").exists():
                weights.unlink()

    def _remove(self, steps: Iterable[int]) -> None:
        for step in steps:
            for file in reversed(self._files(step)):
                file.unlink(missing_ok=True)

    def _files(self, step: int) -> tuple[Path, Path]:
        stem = self.path / f"checkpoint-{step:08d}"
        return stem.with_suffix(".safetensors"), stem.with_suffix(".json")


class TrainingLog:
    """The log of a run: one JSON object per line.

    The file may have rows after the newest checkpoint. A resumed run drops them and repeats their
    steps.
    """

    def __init__(self, folder: Path, rows: list[dict[str, Any]]) -> None:
        self.path = folder / LOG_FILE
        self.rows = rows

    def restart(self, rows: Sequence[dict[str, Any]]) -> None:
        """Replace all rows.

        Raises:
            CheckpointError: The file cannot be written.
        """
        self.rows[:] = rows
        try:
            with replacing(self.path) as temporary:
                temporary.write_text("".join(map(_line, rows)))
        except OSError as error:
            raise self._not_written(error) from error

    def append(self, row: dict[str, Any]) -> None:
        """Add a row and flush it to the file.

        Raises:
            CheckpointError: The file cannot be written.
        """
        self.rows.append(row)
        try:
            with self.path.open("a") as file:
                file.write(_line(row))
        except OSError as error:
            raise self._not_written(error) from error

    def _not_written(self, error: OSError) -> CheckpointError:
        msg = (
            f"training log {self.path} cannot be written ({error}); free some space and start "
            "again: the run goes on from its newest checkpoint"
        )
        return CheckpointError(msg)


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"
