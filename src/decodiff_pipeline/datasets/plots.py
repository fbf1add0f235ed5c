"""Catalog datasets with plots in Kedro-Viz: rows for `dvc plots`, and folders of images."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro_datasets import partitions

from decodiff_pipeline.datasets.whole_files import JSONDataset

if TYPE_CHECKING:
    from kedro_datasets._typing import ImagePreview, PlotlyPreview


class PlotRowsDataset(JSONDataset):
    """A JSON list of rows; ``metadata.dvc.plots`` names the columns of ``x`` and ``y``."""

    def preview(self) -> PlotlyPreview:
        """A line over ``x`` per combination of the other columns; if ``y`` is text, a histogram.

        Returns:
            ``data`` and ``layout`` of a Plotly figure.
        """
        options = self.metadata["dvc"]["plots"]
        x, y = options["x"], options["y"]
        rows = [row for row in self.load() if row.get(x) is not None and row.get(y) is not None]
        counted = any(isinstance(row[y], str) for row in rows)
        traces: dict[str, dict[str, Any]] = {}
        for row in rows:
            name = row[y] if counted else ", ".join(row[key] for key in row if key not in {x, y})
            trace = traces.setdefault(name, {"name": name, "x": [], "y": []})
            trace["x"].append(row[x])
            trace["y"].append(row[y])
        for trace in traces.values():
            if counted:
                del trace["y"]
            trace.update({"type": "histogram"} if counted else {"type": "scatter", "mode": "lines"})
        layout = {
            "title": {"text": options.get("title", "")},
            "xaxis": {"title": {"text": x}},
            "yaxis": {"title": {"text": "images" if counted else y}},
            "legend": {"title": {"text": y if counted else ""}},
            "barmode": "stack",
        }
        return {"data": list(traces.values()), "layout": layout}


class FiguresDataset(partitions.PartitionedDataset):
    """A folder of image files."""

    def preview(self) -> ImagePreview:
        """The first image, base64-encoded."""
        images = Path(self._path).rglob(f"*{self._filename_suffix}")
        return b64encode(min(images).read_bytes()).decode()
