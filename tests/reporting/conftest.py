"""The data sets of the tests of the evaluation."""

from tests.evaluation.conftest import cropped, plate, world

__all__ = ["cropped", "plate", "world"]
