"""Who becomes champion: real models in a registry of the test's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import pytest
import torch
from mlflow.exceptions import MlflowException

from decodiff_pipeline.data.images import ImageFolder
from decodiff_pipeline.errors import ModelError, PromotionRefused, StoreError
from decodiff_pipeline.evaluation.config import EvaluationConfig
from decodiff_pipeline.pipelines.promotion.nodes import settle
from decodiff_pipeline.registry import version_evaluation
from decodiff_pipeline.registry.audit import headline, render_markdown, render_table
from decodiff_pipeline.registry.config import ComparisonGates, PromotionConfig, RollbackConfig
from decodiff_pipeline.registry.promotion import Judgement, judge_challenger, promote
from decodiff_pipeline.registry.rollback import roll_back
from decodiff_pipeline.registry.version_evaluation import EvaluationContext
from decodiff_pipeline.registry.versions import Registry
from decodiff_pipeline.serving import serving_check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Numbers = Callable[[str], str]
    Judge = Callable[..., Judgement]

pytestmark = pytest.mark.slow

NAME = "decodiff"
PROVENANCE = dict.fromkeys(("git_commit", "git_dirty", "dvc_revision", "mlflow_run_id"))
# The images are so plain that the PCA finds every defect too.
NO_PCA = ComparisonGates()


@pytest.fixture
def versions(line: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Numbers]:
    """The number of a version by its description, in a registry of this test's own."""
    torch.set_num_threads(1)
    shutil.copy(line.database, tmp_path / "mlflow.db")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    yield line.versions.__getitem__
    mlflow.set_tracking_uri(None)


@pytest.fixture
def served_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The serving check in this process, which saves the imports of another one."""

    def check(uri: str, tags: Any, images: ImageFolder, rows: Any, _: float) -> Any:
        request = {
            "uri": uri,
            "digests": {tag: tags.get(tag) for tag in serving_check.DIGESTS},
            "root": str(images.path),
            "images": rows[["path", "category"]].to_dict("records"),
        }
        answer = serving_check.answer_request(request)
        scores = answer.pop("scores", [])
        return serving_check.ServingResult(**answer), scores

    monkeypatch.setattr(version_evaluation, "check_serving", check)


@pytest.fixture
def judged(line: Any, tmp_path: Path) -> Judge:
    """Judges a version; keywords are of the configuration."""

    def run(
        number: str, *, manifest: Any = None, registered: str | None = None, **config: Any
    ) -> Judgement:
        context = EvaluationContext(
            line.manifest if manifest is None else manifest,
            ImageFolder(line.raw),
            tmp_path / "predictions",
            EvaluationConfig(),
            settings(challenger=number, **config),
        )
        return judge_challenger(NAME, context, registered)

    return run


def settings(**config: Any) -> PromotionConfig:
    """The defaults but for the PCA and the recall: no image reaches the versions' thresholds."""
    return PromotionConfig(**{"baseline": NO_PCA, "floors": {"image_auroc": 0.6}, **config})


def set_champion(number: str) -> None:
    mlflow.MlflowClient().set_registered_model_alias(NAME, "champion", number)


def aliases() -> dict[str, str]:
    """Champion and previous, as the registry has them."""
    found = Registry(NAME).aliases()
    return {alias: found[alias] for alias in ("champion", "previous") if alias in found}


def tags(number: str) -> dict[str, str]:
    return mlflow.MlflowClient().get_model_version(NAME, number).tags


def failures(line: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and category of the gates that were not passed."""
    return [(gate["name"], gate["category"]) for gate in line["gates"] if not gate["passed"]]


def test_the_first_version_promotes_itself_and_answers_in_a_fresh_process(
    versions: Numbers, judged: Judge
) -> None:
    sharp = versions("sharp")
    done = promote(judged(sharp), settings(), PROVENANCE)
    assert (done["outcome"], done["from_version"], done["to_version"]) == ("promoted", None, sharp)
    assert aliases() == {"champion": sharp}
    assert any("no champion yet" in note for note in done["notes"])
    gates = {gate["name"]: gate for gate in done["gates"]}
    assert gates["serving scores"]["value"] < 1e-4
    assert gates["latency"]["value"] > 0
    assert not [name for name in gates if "champion" in name]
    assert json.loads(tags(sharp)["promotion.by"])["host"]
    assert tags(sharp)["promotion.outcome"] == "promoted"
    json.dumps(done, allow_nan=False)


@pytest.mark.usefixtures("served_here")
def test_a_better_version_takes_over_and_again_nothing_moves(
    versions: Numbers, judged: Judge
) -> None:
    blind, sharp = versions("blind to nuts"), versions("sharp")
    set_champion(blind)
    done = promote(judged(sharp), settings(), PROVENANCE)
    assert done["outcome"] == "promoted", failures(done)
    assert aliases() == {"champion": sharp, "previous": blind}
    assert tags(sharp)["promotion.replaced"] == blind
    gain = next(g for g in done["gates"] if g["name"] == "gain over champion")
    assert gain["value"] > gain["reference"]
    pixels = {g["category"]: g["value"] for g in done["gates"] if g["metric"] == "pixel_aupro"}
    assert 0 < pixels.pop("pin") <= 1  # by the masks there are
    assert pixels == {"nut": None, "ring": None}

    again = promote(judged(sharp), settings(override_reason="so be it"), PROVENANCE)
    assert (again["outcome"], again["gates"]) == ("unchanged", [])
    assert aliases() == {"champion": sharp, "previous": blind}
    assert "nothing moved" in headline(again)


@pytest.mark.usefixtures("served_here")
def test_stored_evaluations_decide_the_same_without_scoring_again(
    line: Any, versions: Numbers, judged: Judge, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_champion(versions("blind to nuts"))
    first, second = (  # other tests evaluate all images
        line.manifest[~line.manifest["path"].str.endswith(f"test/good/{number}.png")]
        for number in (1, 2)
    )
    scored = judged(versions("sharp"), manifest=first)
    assert not list((tmp_path / "predictions").iterdir())  # the work folder of that run is gone

    score_images = version_evaluation.score_images
    error = 0.0

    def score_some(model: Any, rows: Any, images: Any, store: Any, config: Any) -> None:
        if len(rows) > settings().serving.images:
            raise AssertionError("the images are scored again")
        score_images(model, rows, images, store, config)
        index = store.index()
        index.assign(score=index["score"] + error).to_parquet(store.path / "index.parquet")

    monkeypatch.setattr(version_evaluation, "score_images", score_some)
    stored = judged(versions("sharp"), manifest=first)
    measured = ("latency", "serving scores")
    assert [gate for gate in stored.gates if gate.name not in measured] == [
        gate for gate in scored.gates if gate.name not in measured
    ]
    with pytest.raises(AssertionError, match="scored again"):
        judged(versions("sharp"), manifest=second)
    error = 0.1
    with pytest.raises(AssertionError, match="scored again"):
        judged(versions("sharp"), manifest=first)


def test_each_run_has_a_work_folder_and_clears_those_of_killed_ones(tmp_path: Path) -> None:
    (tmp_path / "run-killed").mkdir()
    (tmp_path / "run-killed" / version_evaluation.LOCK).touch()
    with (
        version_evaluation.work_folder(tmp_path) as one,
        version_evaluation.work_folder(tmp_path) as other,
    ):
        assert set(tmp_path.iterdir()) == {one, other}
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("served_here")
def test_a_better_mean_that_loses_a_category_is_refused_but_for_a_reason(
    versions: Numbers, judged: Judge
) -> None:
    champion, challenger = versions("blind to pins and rings"), versions("blind to nuts")
    set_champion(champion)
    images = ComparisonGates(improvement={"image_auroc": 0.0}, regression={"image_auroc": 0.01})
    judgement = judged(challenger, floors={}, champion=images)
    done = promote(judgement, settings(), PROVENANCE)
    assert done["outcome"] == "refused"
    assert failures(done) == [("no loss against champion", "nut")]
    gain = next(g for g in done["gates"] if g["name"] == "gain over champion")
    assert gain["passed"]
    assert aliases() == {"champion": champion}
    assert tags(challenger)["promotion.outcome"] == "refused"
    assert "nut" in tags(challenger)["promotion.failed"]
    table, page = render_table(done), render_markdown(done)
    assert "FAILED" in table
    assert "1 gates" in table.splitlines()[0]
    assert page.count("\n| ") >= len(done["gates"])

    settle(done, settings())
    with pytest.raises(PromotionRefused, match="is refused"):
        settle(done, settings(fail_on_refusal=True))

    forced = promote(judgement, settings(override_reason="nuts are not made here"), PROVENANCE)
    assert (forced["outcome"], forced["reason"]) == ("overridden", "nuts are not made here")
    assert aliases() == {"champion": challenger, "previous": champion}
    assert tags(challenger)["promotion.reason"] == "nuts are not made here"


@pytest.mark.usefixtures("served_here")
def test_a_version_that_does_not_beat_the_pca_is_refused(versions: Numbers, judged: Judge) -> None:
    number = versions("blind to nuts")
    done = promote(
        judged(number, floors={}, baseline=PromotionConfig().baseline), settings(), PROVENANCE
    )
    assert ("no loss against PCA", "nut") in failures(done)
    assert (done["outcome"], aliases()) == ("refused", {})


@pytest.mark.usefixtures("served_here")
def test_a_champion_that_moved_since_the_judgement_is_left_alone(
    versions: Numbers, judged: Judge
) -> None:
    sharp = versions("sharp")
    judgement = judged(sharp)
    set_champion(versions("without rings"))
    done = promote(judgement, settings(override_reason="now or never"), PROVENANCE)
    assert done["outcome"] == "outdated"
    assert any("run kedro run --pipelines promotion again" in note for note in done["notes"])
    assert aliases() == {"champion": versions("without rings")}


@pytest.mark.usefixtures("served_here")
def test_a_lost_category_is_refused_and_a_new_one_is_judged_alone(
    versions: Numbers, judged: Judge
) -> None:
    sharp, fewer = versions("sharp"), versions("without rings")
    set_champion(sharp)
    config = {"champion": ComparisonGates(regression={"image_auroc": 0.5})}
    done = promote(judged(fewer, **config), settings(), PROVENANCE)
    assert (done["outcome"], failures(done)) == ("refused", [("category kept", "ring")])
    compared = {g["category"] for g in done["gates"] if g["name"] == "no loss against champion"}
    assert compared == {"nut", "pin"}
    assert any("unknown to the challenger" in note for note in done["notes"])
    done = promote(judged(fewer, may_lose=("ring",), **config), settings(), PROVENANCE)
    assert done["outcome"] == "promoted"

    done = promote(judged(sharp, **config), settings(), PROVENANCE)
    assert done["outcome"] == "promoted"
    assert any("new with the challenger" in n and n.endswith("ring") for n in done["notes"])
    measured = {gate["category"] for gate in done["gates"] if gate["name"] == "minimum"}
    assert measured == {"nut", "pin", "ring"}


@pytest.mark.usefixtures("served_here")
def test_a_champion_whose_files_are_gone_stays_unless_told_otherwise(
    line: Any, versions: Numbers, judged: Judge
) -> None:
    champion = versions("blind to nuts")
    set_champion(champion)
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/{champion}"))
    assert folder.is_relative_to(line.database.parent)
    folder.rename(folder.with_name("elsewhere"))
    try:
        strict = judged(versions("sharp"))
        loose = judged(versions("sharp"), unloadable_champion="judge_alone")
    finally:
        folder.with_name("elsewhere").rename(folder)
    assert promote(strict, settings(), PROVENANCE)["outcome"] == "refused"
    done = promote(loose, settings(), PROVENANCE)
    assert done["outcome"] == "promoted"
    gate = next(g for g in done["gates"] if g["name"] == "champion loads")
    assert "judged without it" in gate["explanation"]
    assert aliases()["previous"] == champion


@pytest.mark.usefixtures("served_here")
@pytest.mark.parametrize("error", [OSError(28, "No space left"), MlflowException("503")])
def test_a_store_that_is_away_decides_nothing(
    versions: Numbers, judged: Judge, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    champion = versions("blind to nuts")
    set_champion(champion)
    download = mlflow.artifacts.download_artifacts

    def away(uri: str, **options: Any) -> str:
        if uri.endswith(f"/{champion}"):
            raise error
        return str(download(uri, **options))

    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", away)
    with pytest.raises(StoreError, match=r"cannot be fetched: .*; nothing was judged"):
        judged(versions("sharp"))
    assert aliases() == {"champion": champion}


@pytest.mark.usefixtures("served_here")
def test_data_that_changed_since_is_judged_on_as_it_is_now_and_said(
    line: Any, versions: Numbers, judged: Judge
) -> None:
    set_champion(versions("blind to nuts"))
    fewer = line.manifest[~line.manifest["path"].str.endswith("test/good/0.png")]
    found = judged(versions("sharp"), manifest=fewer, registered="99")
    done = promote(found, settings(), PROVENANCE)
    assert done["outcome"] == "promoted"
    assert any("not version 99, which was registered here last" in n for n in done["notes"])
    assert any("the champion (version" in n and "other data" in n for n in done["notes"])
    flagged = next(g for g in done["gates"] if g["name"] == "false-positive rate")
    assert f"of {7} good images" in flagged["explanation"]


def test_changed_files_are_not_served_and_no_reason_overrides_that(
    line: Any, versions: Numbers, judged: Judge
) -> None:
    sharp = versions("sharp")
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{NAME}/{sharp}"))
    index = folder / "artifacts" / "pipeline" / "model_index.json"
    original = index.read_bytes()
    rows = line.manifest[line.manifest["split"] == "test"].head(2)
    index.write_bytes(original + b" ")
    try:
        judgement = judged(sharp)
        serving, scores = serving_check.check_serving(
            f"models:/{NAME}/{sharp}", tags(sharp), ImageFolder(line.raw), rows, 300
        )
    finally:
        index.write_bytes(original)
    assert (serving.files_as_registered, scores) == (False, [])
    done = promote(judgement, settings(override_reason="it will do"), PROVENANCE)
    assert (done["outcome"], failures(done)) == ("refused", [("serving files", "all")])
    assert aliases() == {}


def test_a_process_that_does_not_end_is_no_answer(line: Any, versions: Numbers) -> None:
    sharp = versions("sharp")
    rows = line.manifest.head(1)
    serving, scores = serving_check.check_serving(
        f"models:/{NAME}/{sharp}", tags(sharp), ImageFolder(line.raw), rows, 0.01
    )
    assert "no answer within 0.01 s" in str(serving.error)
    assert scores == []


def test_without_a_challenger_the_sentence_says_what_to_do(
    versions: Numbers, judged: Judge
) -> None:
    with pytest.raises(ModelError, match=r"'candidate'; run kedro run --pipelines registration"):
        judged("candidate")


@pytest.mark.usefixtures("served_here")
def test_a_version_that_was_rolled_back_needs_an_override(versions: Numbers, judged: Judge) -> None:
    blind, sharp = versions("blind to nuts"), versions("sharp")
    set_champion(blind)
    promote(judged(sharp), settings(), PROVENANCE)
    roll_back(NAME, RollbackConfig(reason="false alarms"), PROVENANCE)
    refused = judged(sharp)
    assert failures(promote(refused, settings(), PROVENANCE)) == [("not rolled back", "all")]
    done = promote(refused, settings(override_reason="it was the lamp"), PROVENANCE)
    assert (done["outcome"], aliases()["champion"]) == ("overridden", sharp)
    assert not tags(sharp)["rollback.reason"]


def test_two_promotions_at_once_leave_one_champion_and_one_refusal(versions: Numbers) -> None:
    script = """
import sys
from decodiff_pipeline.registry.versions import Registry
from decodiff_pipeline.registry.promotion import Judgement, promote
from decodiff_pipeline.registry.config import PromotionConfig
registry = Registry("decodiff")
judgement = Judgement(registry.version(sys.argv[1]), None, [], [], "")
sys.stdout.write("ready\\n"); sys.stdout.flush(); sys.stdin.readline()
sys.stdout.write(promote(judgement, PromotionConfig(), {})["outcome"])
"""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, number],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for number in ("1", "2")
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    outcomes = [process.communicate(timeout=120)[0] for process in running]
    assert sorted(outcomes) == ["outdated", "promoted"]
    assert aliases() == {"champion": ("1", "2")[outcomes.index("promoted")]}


def test_rolling_back_imports_no_torch(versions: Numbers) -> None:
    for number in ("1", "2"):
        promote(judgement_of(number), settings(), PROVENANCE)
    script = """
import sys
from decodiff_pipeline.registry.config import RollbackConfig
from decodiff_pipeline.registry.rollback import roll_back
roll_back("decodiff", RollbackConfig(reason="false alarms"), {})
sys.stdout.write(str(sorted({"torch", "diffusers", "sklearn"} & set(sys.modules))))
"""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri()}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout == "[]"
    assert aliases() == {"champion": "1"}


def judgement_of(number: str) -> Judgement:
    """One without a failed gate, as of now."""
    registry = Registry(NAME)
    return Judgement(registry.version(number), registry.champion(), [], [], "")
