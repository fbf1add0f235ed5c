"""What a team has: MLflow on PostgreSQL, as `deploy/server.sh` starts it, and a host with SSH."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.servers import free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).parents[2]
SSHD = Path("/usr/sbin/sshd")
POSTGRES = any(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or bool(shutil.which("initdb"))


def missing() -> list[str]:
    """What this machine lacks."""
    found = {
        "Debian's postgresql": POSTGRES,
        "Debian's openssh-server": SSHD.is_file() and shutil.which("ssh-keygen"),
        "psycopg (extra team)": importlib.util.find_spec("psycopg"),
        "dvc-ssh (extra team)": importlib.util.find_spec("dvc_ssh"),
    }
    return [name for name, there in found.items() if not there]


@dataclass(frozen=True)
class Backend:
    """Attributes:
    uri: Of the MLflow server.
    remote: URL of a DVC remote over SSH.
    home: A home directory whose SSH configuration leads to that host.
    storage: The folder behind the remote.
    """

    uri: str
    remote: str
    home: Path
    storage: Path


@pytest.fixture(scope="package")
def backend() -> Iterator[Backend]:
    """Both servers, on free ports of the loopback interface, until the tests of this folder end."""
    if lacking := missing():
        pytest.skip(f"this machine has no {', no '.join(lacking)}")
    # Not in pytest's folder, which only its owner may enter, and short enough for a socket's name.
    home = Path(tempfile.mkdtemp(prefix="team"))
    try:
        home.chmod(0o755)
        with mlflow_server(home / "server") as uri, ssh_server(home) as (remote, storage):
            yield Backend(uri, remote, home, storage)
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """Run `deploy/server.sh`; gives the server's URI."""
    port = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")},
        "PYTHON": sys.executable,
        "WORKERS": "1",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven processes less
    }
    command = [str(ROOT / "deploy" / "server.sh"), str(folder), str(port)]
    with service(command, folder.with_name("server.log"), env=environment) as process:
        wait_for(f"http://127.0.0.1:{port}/health", process, folder.with_name("server.log"))
        yield f"http://127.0.0.1:{port}"


@contextmanager
def ssh_server(home: Path) -> Iterator[tuple[str, Path]]:
    """Run an SSH server that knows one key; gives a DVC remote on it and the folder behind it.

    As root it runs as another account, as a storage host would have one.
    """
    account = pwd.getpwnam("postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name)
    port, storage, keys = free_port(), home / "storage", home / "sshd"
    for folder in (storage, keys, home / ".ssh"):
        folder.mkdir(mode=0o700)
    for key in (keys / "host", home / ".ssh" / "key"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
        subprocess.run(command, check=True)
    shutil.copy(home / ".ssh" / "key.pub", keys / "authorized")
    (keys / "config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {keys}/host\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {keys}/authorized\nPasswordAuthentication no\nStrictModes no\n"
        "Subsystem sftp internal-sftp\n"
    )
    host_key = (keys / "host.pub").read_text()
    (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    (home / ".ssh" / "config").write_text(
        f"Host storage\n  HostName 127.0.0.1\n  Port {port}\n  User {account.pw_name}\n"
        f"  IdentityFile {home}/.ssh/key\n"
    )
    for path in (storage, keys, *keys.iterdir()):
        os.chown(path, account.pw_uid, account.pw_gid)
    command = [str(SSHD), "-D", "-e", "-f", str(keys / "config")]
    options: dict[str, Any] = {"user": account.pw_name} if os.geteuid() == 0 else {}
    with service(command, home / "sshd.log", **options) as process:
        wait_for_port(port, process, home / "sshd.log")
        yield f"ssh://storage{storage}", storage


@contextmanager
def service(command: Sequence[str], log: Path, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server, and end it as an init system would."""
    with log.open("w") as out, subprocess.Popen(
        command, stdout=out, stderr=out, cwd="/", start_new_session=True, **options
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(log.read_text()[-2000:])
