"""Makes docs/python.ipynb of docs/python.md; `--check` fails where it is stale.

python docs/notebook.py [--check]
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("python.md")
NOTEBOOK = PAGE.with_suffix(".ipynb")
CODE = re.compile(r"^```python\n(.*?)^```\n", re.DOTALL | re.MULTILINE)


def notebook(page: str) -> str:
    """The page as a notebook without outputs: blocks of Python become code cells."""
    cells = []
    for number, text in enumerate(CODE.split(page)):
        if text := text.strip():
            kind = "code" if number % 2 else "markdown"
            cell: dict[str, Any] = {"cell_type": kind, "id": str(len(cells)), "metadata": {}}
            if kind == "code":
                cell |= {"execution_count": None, "outputs": []}
            cells.append(cell | {"source": text.splitlines(keepends=True)})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {"cells": cells, "metadata": {"kernelspec": kernel}}
    return json.dumps(content | {"nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


def main() -> None:
    """Write the notebook, or check it."""
    made = notebook(PAGE.read_text(encoding="utf-8"))
    if "--check" not in sys.argv:
        NOTEBOOK.write_text(made, encoding="utf-8")
    elif not NOTEBOOK.is_file() or NOTEBOOK.read_text(encoding="utf-8") != made:
        sys.exit("docs/python.ipynb is not what docs/python.md says: python docs/notebook.py")


if __name__ == "__main__":
    main()
