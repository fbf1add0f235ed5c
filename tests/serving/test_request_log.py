"""The log of a served model: whole lines whoever writes, images where wanted, never an error."""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from decodiff_pipeline.errors import ConfigurationError
from decodiff_pipeline.serving.answer import Answer
from decodiff_pipeline.serving.request_log import RequestLog

if TYPE_CHECKING:
    from pathlib import Path

MODEL = {"model_version": "bolts/3", "model_sha256": "ab" * 32, "scores_sha256": "cd" * 32}


def answer(decision: str = "good", score: float = 0.25) -> Answer:
    return Answer((60, 50), "mono", None, decision, score, 0.5, "fitted")


def lines(folder: Path) -> list[dict[str, object]]:
    return [
        json.loads(line)
        for file in sorted(folder.glob("*.jsonl"))
        for line in file.read_text().splitlines()
    ]


def write_many(folder: Path, process: int) -> None:
    """Logs 8 x 25 requests of two images from 8 threads."""
    log = RequestLog(folder, MODEL)
    with ThreadPoolExecutor(8) as pool:
        for i in range(200):
            image = f"{process} {i}".encode()
            pool.submit(
                log.write, f"{process}-{i}", [image, image], ["mono", "poly"], [answer()] * 2, 1.0
            )


def test_a_line_says_what_was_asked_and_answered(tmp_path: Path, png: bytes) -> None:
    log = RequestLog(tmp_path / "new" / "log", MODEL)
    log.write("r1", [png], ["mono"], [answer("defective", 0.75)], 12.34)
    (line,) = lines(tmp_path / "new" / "log")
    assert line.pop("time").endswith("+00:00")
    assert line == MODEL | {
        "request_id": "r1",
        "latency_ms": 12.3,
        "images_kept": "none",
        "category": "mono",
        "score": 0.75,
        "threshold": 0.5,
        "threshold_from": "fitted",
        "decision": "defective",
        "image_sha256": hashlib.sha256(png).hexdigest(),
        "width": 60,
        "height": 50,
        "path": None,
    }


def test_threads_of_several_processes_lose_and_mix_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write_many, args=(tmp_path, i)) for i in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    found = [line["request_id"] for line in lines(tmp_path)]
    assert sorted(set(found)) == sorted(f"{p}-{i}" for p in range(3) for i in range(200))
    assert found[::2] == found[1::2]  # the lines of a request are together


@pytest.mark.parametrize(("images", "kept"), [("none", []), ("defective", [1]), ("all", [0, 1])])
def test_images_are_kept_by_content_where_they_are_wanted(
    tmp_path: Path, make, images: str, kept: list[int]
) -> None:
    files = [make.image(tmp_path / f"{i}.bmp", seed=i).read_bytes() for i in range(2)]
    log = RequestLog(tmp_path / "log", MODEL, images=images)
    for _ in range(2):
        log.write("r", files, ["mono"] * 2, [answer(), answer("defective")], 1.0)
    first, second = lines(tmp_path / "log")[:2]
    assert [i for i, line in enumerate((first, second)) if line["path"]] == kept
    for i in kept:
        path = tmp_path / "log" / str((first, second)[i]["path"])
        assert path.read_bytes() == files[i]
        assert path.name == f"{hashlib.sha256(files[i]).hexdigest()}.bmp"
    assert sum(path.is_file() for path in tmp_path.glob("log/images/*/*")) == len(kept)


def test_no_more_images_than_there_is_room_for(
    tmp_path: Path, make, caplog: pytest.LogCaptureFixture
) -> None:
    files = [make.image(tmp_path / f"{i}.png", seed=i).read_bytes() for i in range(4)]
    room = len(files[0]) + len(files[1])
    log = RequestLog(tmp_path / "log", MODEL, images="all", limit_bytes=room)
    with caplog.at_level(logging.WARNING):
        for data in files:
            log.write("r", [data], ["mono"], [answer()], 1.0)
    assert [line["path"] is not None for line in lines(tmp_path / "log")] == [
        True, True, False, False,
    ]  # fmt: skip
    (record,) = caplog.records
    assert "remove old ones, or raise DECODIFF_LOG_IMAGES_GB" in record.getMessage()


def test_a_full_disk_is_one_warning_and_leaves_no_half_line(
    tmp_path: Path, png: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    log = RequestLog(tmp_path, MODEL)
    log.write("before", [png], ["mono"], [answer()], 1.0)
    real = os.write
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(os, "write", lambda file, data: real(file, data[:40]))
        for _ in range(3):
            log.write("lost", [png], ["mono"], [answer()], 1.0)
    log.write("after", [png], ["mono"], [answer()], 1.0)
    assert [line["request_id"] for line in lines(tmp_path)] == ["before", "after"]
    (record,) = caplog.records
    assert "No space left" in record.getMessage()


def test_what_makes_no_sense_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(**variables: str) -> RequestLog | None:
        for name in ("DECODIFF_REQUEST_LOG", "DECODIFF_LOG_IMAGES", "DECODIFF_LOG_IMAGES_GB"):
            monkeypatch.setenv(name, variables.get(name, ""))
        return RequestLog.from_environment(MODEL)

    (tmp_path / "file").write_text("")
    assert start() is None
    for said, variables in {
        "'some'; use none, defective or all": {"DECODIFF_LOG_IMAGES": "some"},
        "DECODIFF_REQUEST_LOG is not set": {"DECODIFF_LOG_IMAGES": "all"},
        "cannot be written to": {"DECODIFF_REQUEST_LOG": str(tmp_path / "file" / "log")},
        "'0'; set it to a number of gigabytes": {
            "DECODIFF_REQUEST_LOG": str(tmp_path),
            "DECODIFF_LOG_IMAGES_GB": "0",
        },
    }.items():
        with pytest.raises(ConfigurationError, match=said):
            start(**variables)
