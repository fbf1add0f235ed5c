"""The command as scripts of users call it; the module is `decodiff_pipeline.reporting.summary`."""

from __future__ import annotations

import runpy

if __name__ == "__main__":
    runpy.run_module("decodiff_pipeline.reporting.summary", run_name="__main__")
