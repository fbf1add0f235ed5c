"""Puts the repository's own configuration into the wheel, for `decodiff-pipeline init`."""

import shutil
import tomllib
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithProject(build_py):
    """Copies the files of a project beside the package's modules."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        root = Path(__file__).parent
        project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
        target = Path(self.build_lib, "decodiff_pipeline", "new_project", "copied")
        shutil.rmtree(target, ignore_errors=True)
        for name in project["tool"]["decodiff_pipeline"]["project_files"]:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (root / name).is_dir() else shutil.copyfile
            copy(root / name, target / name)


setup(cmdclass={"build_py": BuildWithProject})
