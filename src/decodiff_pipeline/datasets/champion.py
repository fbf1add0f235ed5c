"""The champion's files as a catalog dataset, for a training that starts from its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

from kedro.io import AbstractDataset, DatasetError

from decodiff_pipeline.commands import kedro_run
from decodiff_pipeline.deco.digests import folder_sha256
from decodiff_pipeline.errors import ModelError
from decodiff_pipeline.registry.versions import Version, find_champion
from decodiff_pipeline.serving.served_version import logged_folder
from decodiff_pipeline.tracking.mlflow_values import first_line
from decodiff_pipeline.tracking.redaction import redact
from decodiff_pipeline.training.champion import Champion

CURE = "or start from random weights with --params training.init_from=scratch"


class ChampionModelDataset(AbstractDataset[NoReturn, "ChampionModel"]):
    """Looks up the champion and copies its files, when a training asks for them.

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
        """Name the folder and the model.

        Args:
            filepath: Folder of the copy; the next champion's takes its place.
            model_name: The model in the registry whose champion is meant.
        """
        self._filepath = Path(filepath)
        self._model_name = model_name
        self.metadata = metadata

    def load(self) -> ChampionModel:
        """Make the handle, without looking anywhere."""
        return ChampionModel(self._filepath, self._model_name)

    def save(self, data: NoReturn) -> NoReturn:
        """Refuse: a model becomes the champion by its promotion.

        Raises:
            DatasetError: Always.
        """
        raise DatasetError(f"the champion is only read; {kedro_run('promotion')} makes one")

    def _describe(self) -> dict[str, Any]:
        return {"filepath": str(self._filepath), "model_name": self._model_name}


class ChampionModel:
    """The champion of a model in the registry.

    Args:
        folder: Where its copy is kept.
    """

    def __init__(self, folder: Path, model: str) -> None:
        self._folder = folder
        self.model = model

    def fetch(self) -> Champion | None:
        """Copy the champion's files, unless the copy at hand is theirs.

        Returns:
            ``None`` where the model has no champion, or was never registered.

        Raises:
            ModelError: MLflow does not answer, or the files are not those that were registered.
        """
        version = self._version()
        if version is None:
            return None
        registered = version.tags.get("model_sha256")
        if registered is None:
            raise ModelError(
                f"{version.uri}, the champion, has no tag model_sha256 to compare its files with; "
                f"promote a version that {kedro_run('registration')} made, {CURE}"
            )
        if self._copied() != registered:
            self._copy(version, registered)
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

    def _copied(self) -> str | None:
        """SHA-256 of the copy at hand."""
        try:
            return folder_sha256(logged_folder(self._folder))
        except (ModelError, OSError):
            return None

    def _copy(self, version: Version, registered: str) -> None:
        import mlflow

        from decodiff_pipeline.data.atomic import replacing_folder

        with replacing_folder(self._folder) as temporary:
            try:
                # Of the logged model neither code nor the example, which nobody asks for here.
                mlflow.artifacts.download_artifacts(
                    artifact_uri=f"{version.uri}/artifacts", dst_path=str(temporary)
                )
                found = folder_sha256(logged_folder(temporary))
            except Exception as error:
                raise ModelError(
                    f"the files of {version.uri}, the champion, cannot be read "
                    f"({first_line(error)}); check MLflow's artifact store, {CURE}"
                ) from error
            if found != registered:
                raise ModelError(
                    f"the files of {version.uri}, the champion, are not those that were registered "
                    f"(SHA-256 {found[:12]}… instead of {registered[:12]}…); restore them, go back "
                    f"with {kedro_run('rollback')}, {CURE}"
                )
