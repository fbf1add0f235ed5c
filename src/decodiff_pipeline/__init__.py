"""DeCo-Diff anomaly detection as a reproducible Kedro, MLflow and DVC pipeline."""

from __future__ import annotations

import atexit
import getpass
import logging
import os
import shutil
import tempfile
from pathlib import Path


def _require_home() -> None:
    """Set USER and HOME where the process has neither, as in a container with a numeric user id.

    Great Expectations, MLflow and PyTorch read both at import and fail without them, so this runs
    when the package is imported. USER becomes the user id, HOME a temporary folder.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        os.environ["USER"] = str(os.getuid())
    try:
        Path.home()
    except RuntimeError:
        home = tempfile.mkdtemp(prefix="decodiff-home-")
        atexit.register(shutil.rmtree, home, ignore_errors=True)
        os.environ["HOME"] = home
        logging.getLogger(__name__).warning(
            "HOME is not set and user %s has no home folder: this run uses the temporary folder "
            "%s; set HOME to keep the files that libraries download",
            os.getuid(),
            home,
        )


def _let_idle_threads_sleep() -> None:
    """Set OMP_WAIT_POLICY=PASSIVE, unless the user configured how OpenMP threads wait.

    By default idle OpenMP threads spin and keep their core busy: beside one busy process, scoring
    a batch took 30 s instead of 1 s. torch reads the policy once, when it is imported, so it is
    set when this package is imported.
    """
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def _let_arrow_return_memory() -> None:
    """Set ARROW_DEFAULT_MEMORY_POOL=system, unless the user has set it.

    Arrow's default allocator keeps the memory of freed tables for itself; the C library's makes it
    available to the whole process. pyarrow reads the variable once, when it is imported.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


_require_home()
_let_idle_threads_sleep()
_let_arrow_return_memory()
