"""Errors that a user can fix: each message names the file or key, the value and the fix."""

from __future__ import annotations


class DecodiffError(Exception):
    """Base class of the errors that this package raises on purpose."""


class ConfigurationError(DecodiffError):
    """A parameter, a command-line option or an environment is invalid."""


class DataError(DecodiffError):
    """A data set or one of its files is missing or invalid."""


class ImageError(DataError):
    """An image or mask cannot be read."""


class CacheError(DecodiffError):
    """The latent cache is damaged or cannot be written."""


class CheckpointError(DecodiffError):
    """A training checkpoint is damaged or belongs to another run."""


class ModelError(DecodiffError):
    """A trained model cannot be loaded, or a request to it is invalid."""


class StoreError(DecodiffError):
    """A model store does not return a stored model."""


class DriftDetected(DecodiffError):
    """Recent images differ from the reference, and ``monitoring.fail_on_drift`` is set."""


class PromotionRefused(DecodiffError):
    """A new version did not pass its gates, and the run is configured to fail then."""


class RetrainingFailed(DecodiffError):
    """A step of a scheduled retraining failed."""


class TrackingError(DecodiffError):
    """Records that a run left for MLflow cannot be sent."""


class ComputeError(DecodiffError):
    """A worker process was killed or failed unexpectedly."""
