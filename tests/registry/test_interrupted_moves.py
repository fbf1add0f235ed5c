"""Promotions, rollbacks and registrations that are cut off half-way, and how they are mended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from decodiff_pipeline.errors import ConfigurationError, ModelError
from decodiff_pipeline.pipelines.promotion import nodes as promotion_nodes
from decodiff_pipeline.pipelines.rollback import nodes as rollback_nodes
from decodiff_pipeline.registry import audit
from decodiff_pipeline.registry.config import PromotionConfig, RegistrationConfig, RollbackConfig
from decodiff_pipeline.registry.gates import Gate
from decodiff_pipeline.registry.promotion import Judgement, is_logged, promote
from decodiff_pipeline.registry.rollback import roll_back
from decodiff_pipeline.registry.versions import Registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NAME = "decodiff"
CODE = {"git_commit": None, "git_dirty": None}


@pytest.fixture
def registry(store: str, tmp_path: Path) -> Registry:
    """Three versions, of which the second is the champion in place of the first."""
    registry = Registry(NAME)
    registry.client.create_registered_model(NAME)
    (tmp_path / "files").mkdir()
    for _ in range(3):
        registry.client.create_model_version(NAME, str(tmp_path / "files"))
    for number in ("1", "2"):
        promoted(registry, number)
    assert registry.aliases() == {"champion": "2", "previous": "1"}
    return registry


def promoted(registry: Registry, number: str) -> dict[str, Any]:
    judgement = Judgement(registry.version(number), registry.champion(), [], [], "")
    return promote(judgement, PromotionConfig(), {})


def rolled_back(reason: str = "false alarms") -> dict[str, Any]:
    return roll_back(NAME, RollbackConfig(reason=reason), {})


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], pytest.MonkeyPatch]:
    """Makes MLflow fail to move an alias, until the patch that it returns is undone."""
    import mlflow
    from mlflow.exceptions import MlflowException

    move = mlflow.MlflowClient.set_registered_model_alias

    def breaking(alias: str, *, late: bool = False) -> pytest.MonkeyPatch:
        def fail(self: Any, name: str, asked: str, number: str) -> None:
            if asked != alias or late:
                move(self, name, asked, number)
            if asked == alias:
                raise MlflowException("timed out")

        monkeypatch.setattr(mlflow.MlflowClient, "set_registered_model_alias", fail)
        return monkeypatch

    return breaking


def test_a_promotion_cut_off_before_the_champion_moves_nothing(
    registry: Registry, broken: Any
) -> None:
    outage = broken("champion")
    with pytest.raises(ModelError, match="timed out"):
        promoted(registry, "3")
    outage.undo()
    assert registry.aliases() == {"champion": "2", "previous": "1"}


def test_a_champion_that_moved_is_logged_and_can_be_rolled_back(
    registry: Registry, broken: Any
) -> None:
    outage = broken("previous")
    line = promoted(registry, "3")
    outage.undo()
    assert line["outcome"] == "promoted"
    assert "the alias previous was not set to version 2" in line["notes"][-1]
    registry.point("previous", "3")  # at its worst
    assert rolled_back()["to_version"] == "2"
    assert registry.aliases() == {"champion": "2", "previous": "1"}


def test_a_server_that_answers_too_late_has_moved_the_alias(
    registry: Registry, broken: Any
) -> None:
    outage = broken("champion", late=True)
    assert promoted(registry, "3")["outcome"] == "promoted"
    outage.undo()
    assert registry.aliases() == {"champion": "3", "previous": "2"}


def test_a_rollback_cut_off_half_way_is_logged_and_the_withdrawn_version_known(
    registry: Registry, broken: Any
) -> None:
    promoted(registry, "3")
    outage = broken("previous")
    line = rolled_back()
    outage.undo()
    assert (line["from_version"], line["to_version"]) == ("3", "2")
    assert "the alias previous was not set to version 1" in line["notes"][-1]
    assert registry.version("3").tags["rollback.reason"] == "false alarms"
    assert rolled_back()["to_version"] == "1"


def killed(action: str, registry: Registry, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    """A move that ends at once before an alias is moved, as SIGKILL does; its process is dead."""
    point = Registry.point

    def end(self: Registry, alias: str, number: str | None) -> None:
        if alias == at:
            raise KeyboardInterrupt
        point(self, alias, number)

    with monkeypatch.context() as patched:
        patched.setattr(Registry, "point", end)
        patched.setattr("os.getpid", lambda: 2**22 + 1)
        with pytest.raises(KeyboardInterrupt):
            rolled_back() if action == "rollback" else promoted(registry, "3")


def rolled_back_by_pipeline() -> list[tuple[str, str]]:
    """What the pipeline adds to the audit log; the tag is gone then."""
    settings = RegistrationConfig(model_name=NAME), RollbackConfig(reason="false alarms")
    done, lines = rollback_nodes.roll_back({}, *settings)
    rollback_nodes.settle(done)
    assert "audit.unlogged" not in Registry(NAME).model_tags()
    return [(line["action"], line["to_version"]) for line in lines]


@pytest.mark.parametrize(("at", "moved"), [("champion", False), ("previous", True)])
def test_a_rollback_that_was_killed_and_runs_again_goes_back_one_version(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, at: str, moved: bool
) -> None:
    promoted(registry, "3")
    killed("rollback", registry, monkeypatch, at)
    assert registry.aliases()["champion"] == ("2" if moved else "3")
    assert rolled_back_by_pipeline() == [("rollback", "2")]
    assert registry.aliases() == {"champion": "2", "previous": "1"}
    assert registry.version("3").tags["rollback.reason"] == "false alarms"
    assert rolled_back_by_pipeline() == [("rollback", "1")]  # asked for once more


def test_a_promotion_that_was_killed_gets_its_line_in_the_audit_log(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed("promotion", registry, monkeypatch, "previous")
    assert registry.aliases() == {"champion": "3", "previous": "1"}
    judgement = Judgement(registry.version("3"), registry.champion(), [], [], "")
    done, lines, _ = promotion_nodes.move_champion(judgement, CODE, PromotionConfig())
    promotion_nodes.settle(done, PromotionConfig())
    assert done["outcome"] == "unchanged"
    assert [(line["outcome"], line["from_version"], line["to_version"]) for line in lines] == [
        ("promoted", "2", "3")
    ]
    assert registry.aliases() == {"champion": "3", "previous": "2"}
    assert "audit.unlogged" not in registry.model_tags()


def test_a_rollback_after_a_promotion_that_was_killed_logs_both(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed("promotion", registry, monkeypatch, "previous")
    assert rolled_back_by_pipeline() == [("promotion", "3"), ("rollback", "2")]
    assert registry.aliases() == {"champion": "2", "previous": "1"}


def test_a_move_of_a_process_that_lives_is_left_to_it(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.getpid", lambda: 1)
    promoted(registry, "3")
    monkeypatch.undo()
    assert audit.finish_move(NAME) is None
    audit.settle_move(NAME)
    assert "audit.unlogged" in registry.model_tags()


def test_a_registry_that_is_away_costs_no_previous(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    from mlflow.exceptions import MlflowException

    promoted(registry, "3")
    get = mlflow.MlflowClient.get_model_version

    def away(self: Any, name: str, number: str) -> Any:
        if number == "1":
            raise MlflowException("503")
        return get(self, name, number)

    with monkeypatch.context() as outage:
        outage.setattr(mlflow.MlflowClient, "get_model_version", away)
        with pytest.raises(ModelError, match="503"):
            rolled_back()
    assert registry.aliases() == {"champion": "3", "previous": "2"}
    registry.client.delete_model_version(NAME, "1")
    assert rolled_back()["to_version"] == "2"
    assert registry.aliases() == {"champion": "2"}


def test_no_rollback_brings_back_what_was_withdrawn(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted(registry, "3")
    promoted(registry, "1")
    with pytest.raises(ConfigurationError, match=r"rollback\.reason is empty"):
        roll_back(NAME, RollbackConfig(), {})
    variables = {"ACTIONS": "true", "SERVER_URL": "https://example.org", "REPOSITORY": "a/b"}
    for name, value in {**variables, "RUN_ID": "7"}.items():
        monkeypatch.setenv(f"GITHUB_{name}", value)
    line = rolled_back("1 is bad")
    assert (line["from_version"], line["to_version"]) == ("1", "3")
    assert line["by"]["run_url"] == "https://example.org/a/b/actions/runs/7"
    assert "champion again" in audit.render_table(line)
    assert rolled_back("3 is bad")["to_version"] == "2"
    with pytest.raises(ModelError, match="no previous champion"):
        rolled_back("2 is bad")
    assert registry.aliases() == {"champion": "2"}


def test_a_store_that_cannot_be_opened_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setattr(mlflow, "MlflowClient", lambda: open("/no/such/folder/x.db"))
    with pytest.raises(ModelError, match=r"cannot be read \(.*No such file"):
        Registry(NAME)


def test_the_audit_log_gets_a_refusal_once_and_no_line_where_nothing_moved(
    registry: Registry,
) -> None:
    def logged(*failed: str, number: str = "3") -> bool:
        gates = [
            Gate(name, "nut", "recall", 0.1, None, 0.2, False, f"{len(name)} ms: too slow")
            for name in failed
        ]
        challenger = registry.version(number)
        judgement = Judgement(challenger, registry.champion(), gates, [], "")
        return is_logged(judgement, promote(judgement, PromotionConfig(), {}))

    assert [logged("size"), logged("size"), logged("latency")] == [True, False, True]
    assert [logged(), logged()] == [True, False]  # promoted, and the champion already
    assert not registry.version("3").tags.get("rollback.reason")
