"""Creates a project outside a checkout of the repository: `decodiff-pipeline init my-line`.

The configuration is a copy of the repository's. The wheel has it in the folder `copied` (see
setup.py); in a checkout it is read from the repository. The folder `template` has the other files.
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
    """Write a project whose name is that of its folder.

    Raises:
        click.ClickException: The name is invalid, or the folder is not empty.
    """
    name = target.name
    if NAME.fullmatch(name) is None:
        raise click.ClickException(
            f"{name!r} cannot be the name of a project: use small letters, digits, '.', '_', '-'"
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise click.ClickException(f"{target} is there already: name a new or empty folder")
    root, files = _repository_files()
    for file in files:
        source, copy = root / file, target / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, copy)
    values = {"name": name, "kedro": version("kedro"), "version": version("decodiff-pipeline")}
    for template in TEMPLATE.iterdir():
        text = template.read_text(encoding="utf-8")
        for key, value in values.items():
            text = text.replace(f"{{{key}}}", value)
        (target / template.name).write_text(text, encoding="utf-8")
    (target / "data" / "01_raw" / name).mkdir(parents=True)
    _replace(target / "conf" / "base" / "globals.yml", r"(?m)^dataset: .*$", f"dataset: {name}")
    _replace(target / WORKFLOW, r"KEDRO_ENV: .*", f"KEDRO_ENV: {name}")


def _repository_files() -> tuple[Path, list[str]]:
    """The folder of the repository's files, and the paths of those that a project needs."""
    if PACKAGED.is_dir():
        files = (path for path in PACKAGED.rglob("*") if path.is_file())
        return PACKAGED, sorted(path.relative_to(PACKAGED).as_posix() for path in files)
    settings = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    return CHECKOUT, settings["tool"]["decodiff_pipeline"]["project_files"]


def _replace(file: Path, pattern: str, replacement: str) -> None:
    text, count = re.subn(pattern, replacement, file.read_text(encoding="utf-8"), count=1)
    assert count == 1, file  # noqa: S101 - the file comes from this package
    file.write_text(text, encoding="utf-8")


@click.group()
def main() -> None:
    """DeCo-Diff anomaly detection. In a project, use `kedro run` and `make help`."""


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Create a project in FOLDER. The name of the folder is also that of the data set."""
    target = folder.absolute()
    make_project(target)
    git = shutil.which("git")
    if git is not None:
        in_repository = [git, "-C", str(target), "rev-parse", "--is-inside-work-tree"]
        if subprocess.run(in_repository, capture_output=True, check=False).returncode:  # noqa: S603
            subprocess.run([git, "init", "--quiet", str(target)], check=True)  # noqa: S603
    click.echo(
        f"Made {folder}. Next:\n"
        f"  cd {folder}\n"
        f"  put good images into data/01_raw/{target.name}/<category>/good\n"
        "  make run"
    )


if __name__ == "__main__":
    main()
