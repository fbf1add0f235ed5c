"""Commands of a project in forks of one process that has imported everything already.

A `kedro run` imports for some 9 s of processor time before it does anything. Where hundreds of them
are run one after the other, `Preloaded` starts one process that imports once, and a folder with a
`kedro` and a `python` that hand their command, working folder, environment and output to it. The
command runs in a fork, as the same code with the same arguments. Where its caller is killed, so is
the fork, with its whole process group.

A command that calls others by its own interpreter or by the path, as `dvc repro` does, reaches
these two again. `python` without ``-m`` is the real interpreter.
"""

from __future__ import annotations

import array
import contextlib
import gc
import importlib
import inspect
import json
import logging
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

import decodiff_pipeline

if TYPE_CHECKING:
    import types
    from collections.abc import Mapping

ROOT = Path(__file__).parents[1]
PREFIX = "decodiff_pipeline."
MODULES = (
    "alembic.command", "diffusers.pipelines.pipeline_utils", "dvc.cli", "dvc.commands.repro",
    "dvc.repo", "great_expectations", "kedro.framework.cli.cli", "kedro.framework.session",
    "kedro.runner", "kedro_datasets.json", "kedro_datasets.matplotlib", "kedro_datasets.pandas",
    "kedro_datasets.text", "kedro_telemetry.plugin", "matplotlib.backends.backend_agg",
    "matplotlib.figure", "mlflow.cli", "mlflow.pyfunc", "mlflow.store.model_registry.rest_store",
    "mlflow.store.model_registry.sqlalchemy_store", "mlflow.store.tracking.rest_store",
    "mlflow.store.tracking.sqlalchemy_store", "mlflow.system_metrics.system_metrics_monitor",
    "opentelemetry.sdk.trace", "pyarrow.csv", "pyarrow.dataset", "pyarrow.parquet",
    "scipy.ndimage", "scipy.stats", "sklearn.decomposition", "sklearn.metrics", "tabulate",
    "tomli_w",
)  # fmt: skip
CLIENT = """\
#!/usr/bin/python3 -SE
import array, json, os, socket, sys
name = os.path.basename(sys.argv[0])
if name == "python" and sys.argv[1:2] != ["-m"]:
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
words = sys.argv[2:] if name == "python" else [name, *sys.argv[1:]]
request = json.dumps([words, os.getcwd(), dict(os.environ)]).encode()
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    files = array.array("i", [0, 1, 2])
    length = len(request).to_bytes(4, "big")
    server.sendmsg([length], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
    server.sendall(request)
    code = server.recv(1)
sys.exit(code[0] if code else 1)
"""


class Preloaded:
    """The process with the imports, and the programs that use it.

    Args:
        folder: An empty one, with a short path: a socket lies in it.
        project: Whose ``conf/logging.yml`` holds.
    """

    def __init__(self, folder: Path, project: Path) -> None:
        folder.mkdir(parents=True)
        self.programs = folder / "bin"
        address = str(folder / "socket")
        self.programs.mkdir()
        for name in ("kedro", "python", "dvc", "mlflow"):
            program = self.programs / name
            program.write_text(CLIENT.format(python=sys.executable, address=address))
            program.chmod(0o755)
        paths = [str(ROOT / "src"), str(ROOT)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, "-m", "benchmarks.preloaded", address, str(self.programs)]
        (self.programs / "uvicorn").symlink_to(Path(sys.executable).with_name("uvicorn"))
        self.process = subprocess.Popen(command, cwd=project, env=environment)
        while not Path(address).exists():
            if self.process.poll() is not None:
                raise RuntimeError("the process with the imports has ended")
            time.sleep(0.1)

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """Variables of a shell that finds these programs first."""
        return {**given, "PATH": f"{self.programs}{os.pathsep}{given['PATH']}"}

    def wait(self) -> None:
        """Wait until every command has ended, also those whose callers were killed."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        while children.read_text().strip():
            time.sleep(0.02)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def serve(address: str, programs: Path) -> None:
    """Import, and answer one request after the other, each in a fork."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks below
    own = [one.name for one in pkgutil.walk_packages(decodiff_pipeline.__path__, PREFIX)]
    for name in [*MODULES, *own]:
        if not name.endswith("__main__"):
            with contextlib.suppress(ModuleNotFoundError):  # of an extra that is not installed
                importlib.import_module(name)
    Image.init()
    inspect.stack = stack  # type: ignore[assignment]
    gc.freeze()  # forks share what is there
    sys.executable = str(programs / "python")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(16)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            with contextlib.suppress(BrokenPipeError):
                connection.sendall(bytes([answer(connection)]))
            os._exit(0)
        connection.close()


def stack(context: int = 1) -> list[inspect.FrameInfo]:
    """`inspect.stack` without source lines: each would be looked for in all imported modules.

    Args:
        context: Not used.
    """
    frame: types.FrameType | None = sys._getframe(1)
    found = []
    while frame is not None:
        code = frame.f_code
        found.append(
            inspect.FrameInfo(frame, code.co_filename, frame.f_lineno, code.co_name, None, None)
        )
        frame = frame.f_back
    return found


def answer(connection: socket.socket) -> int:
    """Run one command in a fork; it is killed where its caller is. Returns its exit status."""
    size = array.array("i").itemsize
    head, files, _, _ = connection.recvmsg(4, socket.CMSG_LEN(3 * size))
    descriptors = array.array("i", files[0][2][: 3 * size]).tolist()
    text = b""
    while len(text) < int.from_bytes(head, "big"):
        text += connection.recv(1 << 16)
    worker = os.fork()
    if worker == 0:
        run(descriptors, *json.loads(text))
    ended = os.pidfd_open(worker)
    ready, _, _ = select.select([ended, connection], [], [])
    if ended not in ready:
        os.kill(worker, signal.SIGKILL)  # still there: nobody has waited for it
        with contextlib.suppress(ProcessLookupError):  # it had not begun its group yet
            os.killpg(worker, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) % 256


def run(descriptors: list[int], words: list[str], folder: str, variables: dict[str, str]) -> None:
    """Become the command; never returns."""
    os.setsid()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    sys.argv = words
    sys.path.insert(0, folder)
    if words[0] in ("dvc", "mlflow"):  # Kedro's set-up would print tracebacks that DVC keeps
        logging.getLogger().handlers.clear()
    code: Any = 0
    try:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        code = 1
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
    end_as_python_does()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def end_as_python_does() -> None:
    """What has to happen at the end of a process: threads are waited for, then `atexit`."""
    import atexit
    import threading

    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
