"""Nodes that cannot work together say so at once."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from tests.servers import free_port
from torch.distributed import TCPStore

from decodiff_pipeline import distributed
from decodiff_pipeline.compute.group import Group
from decodiff_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]


class Pair(Group):
    """Rank 0 of two, of which the other one gives what a function makes of a value."""

    def __init__(self, other: Callable[[Any], Any]) -> None:
        super().__init__(0, 2)
        object.__setattr__(self, "other", other)

    def gather(self, value: Any) -> list[Any]:
        return [value, self.other(value)]  # type: ignore[attr-defined]


def test_other_versions_and_clocks_are_refused_with_the_difference() -> None:
    def newer(value: Any) -> Any:
        return value | {"torch": "99.0"} if isinstance(value, dict) else value

    def late(value: Any) -> Any:
        return value - 3600 if isinstance(value, float) else value

    distributed._require_same_versions(Pair(lambda value: value))
    with pytest.raises(
        ConfigurationError, match=r"versions: torch \S+ and 99\.0; install the same"
    ):
        distributed._require_same_versions(Pair(newer))
    with pytest.raises(ConfigurationError, match=r"ranks 0 and 1 differ by 3600 sec.*NTP"):
        distributed._require_same_versions(Pair(late))


def test_a_folder_that_one_node_does_not_see_is_refused(tmp_path: Path) -> None:
    distributed._require_shared(Pair(lambda value: value), tmp_path)
    with pytest.raises(ConfigurationError, match=r"ranks \[1\] do not see .*shared file system"):
        distributed._require_shared(Pair(lambda value: False if value is True else value), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_port_that_another_program_has_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(distributed, "ANSWER_SECONDS", 0.5)
        monkeypatch.delenv("RANK", raising=False)
        endpoint = f"127.0.0.1:{port}"
        told = ["--nnodes=2", "--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}", "training"]
        assert distributed.main(told) == 1
        assert capsys.readouterr().err == (
            f"Error: port {port} of 127.0.0.1 is taken by another program; give all nodes another "
            f"one, such as --rdzv-endpoint 127.0.0.1:{port + 1}\n"
        )
    distributed._require_rendezvous(endpoint)  # free
    monkeypatch.undo()
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    distributed._require_rendezvous(f"127.0.0.1:{store.port}")  # another node is there


@pytest.mark.slow
def test_nodes_in_two_folders_end_with_a_sentence(tmp_path: Path) -> None:
    """Two launchers, as a scheduler starts them, of which one has another project folder."""
    port, nodes = free_port(), []
    for name in ("one", "two"):
        folder = tmp_path / name
        shutil.copytree(ROOT / "conf", folder / "conf")
        shutil.copy(ROOT / "pyproject.toml", folder)
        (folder / "src").mkdir()
        command = [
            sys.executable, "-m", "decodiff_pipeline.distributed", "--nnodes=2",
            "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}",
            "--rdzv-id=test", "--local-addr=127.0.0.1",
            "latent_caching", "--params", "compute.device=cpu",
        ]  # fmt: skip
        nodes.append(subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True))
    said = [node.communicate(timeout=300)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [1, 1], said
    for words in ("Error: ranks [1] do not see what rank 0 writes to", "go on where they stopped"):
        assert any(words in text for text in said), said
    time.sleep(1)
    left = [each.info for each in psutil.process_iter(["cwd", "cmdline"])
            if str(each.info["cwd"]).startswith(str(tmp_path))]  # fmt: skip
    assert not left
    assert os.listdir(tmp_path / "one" / "data") == []
