"""Errors that a user can act on: each message names the file or key, the value and the cure."""

from __future__ import annotations


class DecodiffError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigurationError(DecodiffError):
    """A parameter or an environment does not make sense."""


class DataError(DecodiffError):
    """A data set or one of its files is not what it should be."""


class ImageError(DataError):
    """An image or mask cannot be read safely."""


class CacheError(DecodiffError):
    """The latent cache is damaged or cannot be written."""


class CheckpointError(DecodiffError):
    """A training checkpoint is damaged or belongs to another run."""


class ModelError(DecodiffError):
    """A trained model cannot be loaded or was asked for something it does not know."""


class StoreError(DecodiffError):
    """A store of models does not hand over what it has."""


class DriftDetected(DecodiffError):
    """Recent images differ from the reference, and the run was asked to fail then."""


class PromotionRefused(DecodiffError):
    """A new version did not pass its gates, and the run was told to fail then."""


class RetrainingFailed(DecodiffError):
    """A step of a scheduled retraining has failed."""


class TrackingError(DecodiffError):
    """What a run left for MLflow cannot be sent."""


class ComputeError(DecodiffError):
    """A worker process was ended, or has failed in an unexpected way."""
