"""Makes a project away from the checkout: `decodiff-pipeline init my-line`.

Its configuration is the repository's own: setup.py puts it into the wheel (`copied`), and in a
checkout it is read from where it is. `template` has the few files that are a project's alone.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from importlib.metadata import version
from pathlib import Path

import click

NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
TEMPLATE = Path(__file__).with_name("template")
PACKAGED = Path(__file__).with_name("copied")
CHECKOUT = Path(__file__).parents[3]
WORKFLOW = ".github/workflows/retrain.yml"


def make_project(target: Path) -> None:
    """Write a project named like its folder.

    Raises:
        click.ClickException: The name will not do, or the folder holds something.
    """
    name = target.name
    if NAME.fullmatch(name) is None:
        raise click.ClickException(
            f"{name!r} cannot be the name of a project: use small letters, digits, '.', '_', '-'"
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise click.ClickException(f"{target} is there already: name a new or empty folder")
    root, files = _template()
    for file in files:
        source, copy = root / file, target / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, copy)
    facts = {"name": name, "kedro": version("kedro"), "version": version("decodiff-pipeline")}
    for own in TEMPLATE.iterdir():
        text = own.read_text(encoding="utf-8")
        for key, value in facts.items():
            text = text.replace(f"{{{key}}}", value)
        (target / own.name).write_text(text, encoding="utf-8")
    (target / "data" / "01_raw" / name).mkdir(parents=True)
    _rename(target / "conf" / "base" / "globals.yml", r"(?m)^dataset: .*$", f"dataset: {name}")
    _rename(target / WORKFLOW, r"KEDRO_ENV: .*", f"KEDRO_ENV: {name}")


def _template() -> tuple[Path, list[str]]:
    """The files of a project, and the folder that they lie in."""
    root = PACKAGED if PACKAGED.is_dir() else CHECKOUT
    if root == PACKAGED:
        found = (path for path in root.rglob("*") if path.is_file())
        return root, sorted(path.relative_to(root).as_posix() for path in found)
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return root, settings["tool"]["decodiff_pipeline"]["project_files"]


def _rename(file: Path, pattern: str, by: str) -> None:
    text, count = re.subn(pattern, by, file.read_text(encoding="utf-8"), count=1)
    assert count == 1, file  # noqa: S101 - of a file of this package
    file.write_text(text, encoding="utf-8")


@click.group()
def main() -> None:
    """DeCo-Diff anomaly detection; within a project `kedro run` and `make help`."""


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Make a project in FOLDER, whose name is also that of the data set."""
    target = folder.absolute()
    make_project(target)
    git = shutil.which("git")
    if git is not None:
        inside = [git, "-C", str(target), "rev-parse", "--is-inside-work-tree"]
        if subprocess.run(inside, capture_output=True, check=False).returncode:  # noqa: S603
            subprocess.run([git, "init", "--quiet", str(target)], check=True)  # noqa: S603
    click.echo(
        f"Made {folder}. Next:\n"
        f"  cd {folder}\n"
        f"  put good images into data/01_raw/{target.name}/<category>/good\n"
        "  make run"
    )


if __name__ == "__main__":
    main()
