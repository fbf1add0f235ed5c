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
    """Sets HOME to a temporary folder, and USER to the user's number, where there is neither.

    Containers run as a number that has no name and no home. Great Expectations, MLflow and PyTorch
    ask for both while they are imported, and stop. Whatever starts this package comes here first.
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
            "HOME is not set and user %s has no home folder: %s serves as one until this run ends; "
            "set HOME to keep what libraries download",
            os.getuid(),
            home,
        )


def _let_idle_threads_sleep() -> None:
    """Sets OpenMP's waiting policy, unless the user has set one.

    torch's idle threads spin while they wait, which takes the core of whatever runs beside them: a
    batch that is scored in a second took half a minute beside one busy process. The policy is read
    once, when torch is loaded. Whatever starts this package comes here before that.
    """
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


_require_home()
_let_idle_threads_sleep()
