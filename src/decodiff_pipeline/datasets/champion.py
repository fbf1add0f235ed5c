"""Catalog dataset of the champion's files, for training that starts from its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.datasets.read_only import ReadOnlyDataset
from decodiff_pipeline.deco.digests import folder_sha256
from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.registry.versions import Version, find_champion
from decodiff_pipeline.serving.served_version import logged_folder
from decodiff_pipeline.tracking.mlflow_values import first_line
from decodiff_pipeline.tracking.redaction import redact
from decodiff_pipeline.training.champion import Champion

CURE = "or start from random weights with --params training.init_from=scratch"


class ChampionModelDataset(ReadOnlyDataset["ChampionModel"]):
    """Loads a handle that downloads the champion when training requests it.

    Example:
        .. code-block:: yaml

            champion_model:
              type: decodiff_pipeline.datasets.champion.ChampionModelDataset
              filepath: data/06_models/elpv/champion
              model_name: decodiff-elpv
    """

    def __init__(
        self, *, filepath: str, model_name: str, metadata: dict[str, Any] | None = None
    ) -> None:
        """Set the folder and the registered model.

        Args:
            filepath: Folder of the downloaded files; a new champion replaces its content.
            model_name: Name of the registered model.
        """
        self._filepath = Path(filepath)
        self._model_name = model_name
        self.metadata = metadata
        self.read_only = (
            f"champion_model is read-only; set the champion with {kedro_run('promotion')}"
        )

    def load(self) -> ChampionModel:
        """Create the handle, without access to the registry."""
        return ChampionModel(self._filepath, self._model_name)

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "model_name": self._model_name}


class ChampionModel:
    """The champion of a registered model, and the folder of its downloaded files."""

    def __init__(self, folder: Path, model: str) -> None:
        self._folder = folder
        self.model = model

    def fetch(self) -> Champion | None:
        """Download the champion's files, unless the folder already has them.

        Returns:
            ``None`` if the model has no champion or is not registered.

        Raises:
            ModelError: MLflow does not respond, the version has no tag ``model_sha256``, or the
                SHA-256 of its files differs from the tag.
        """
        version = self._version()
        if version is None:
            return None
        registered = version.tags.get("model_sha256")
        if registered is None:
            raise ModelError(
                f"{version.uri}, the champion, has no tag model_sha256 to compare its files with; "
                f"promote a version registered by {kedro_run('registration')}, {CURE}"
            )
        if self._downloaded_sha256() != registered:
            self._download(version, registered)
        return Champion(self.model, version.number, registered, logged_folder(self._folder))

    def _version(self) -> Version | None:
        try:
            return find_champion(self.model)
        except Exception as error:
            import mlflow

            uri = redact(mlflow.get_registry_uri())
            raise ModelError(
                f"training.init_from is champion, but MLflow at {uri} did not answer when asked "
                f"for the champion of {self.model} ({first_line(error)}); check MLflow, {CURE}"
            ) from error

    def _downloaded_sha256(self) -> str | None:
        try:
            return folder_sha256(logged_folder(self._folder))
        except (ModelError, OSError):
            return None

    def _download(self, version: Version, registered: str) -> None:
        import mlflow

        from decodiff_pipeline.data.atomic import replacing_folder

        with replacing_folder(self._folder) as temporary:
            try:
                # Only the artifacts: code and input example of the logged model are not needed.
                mlflow.artifacts.download_artifacts(
                    artifact_uri=f"{version.uri}/artifacts", dst_path=str(temporary)
                )
                actual = folder_sha256(logged_folder(temporary))
            except Exception as error:
                raise ModelError(
                    f"the files of {version.uri}, the champion, cannot be read "
                    f"({first_line(error)}); check MLflow's artifact store, {CURE}"
                ) from error
            if actual != registered:
                raise ModelError(
                    f"the files of {version.uri}, the champion, are not those that were registered "
                    f"(SHA-256 {actual[:12]}… instead of {registered[:12]}…); restore the files, "
                    f"roll back with {kedro_run('rollback')}, {CURE}"
                )
