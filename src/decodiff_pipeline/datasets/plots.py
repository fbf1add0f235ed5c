"""Plots that Kedro-Viz shows: rows that `dvc plots` draws, and folders of pictures."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kedro_datasets import partitions

from decodiff_pipeline.datasets.whole_files import JSONDataset

if TYPE_CHECKING:
    from kedro_datasets._typing import ImagePreview, PlotlyPreview


class PlotRowsDataset(JSONDataset):
    """A JSON file of rows; ``metadata.dvc.plots`` names their columns ``x`` and ``y``."""

    def preview(self) -> PlotlyPreview:
        """A line over ``x`` for each value of the other columns; of texts in ``y``, their counts.

        Returns:
            Plotly's ``data`` and ``layout``.
        """
        hint = self.metadata["dvc"]["plots"]
        x, y = hint["x"], hint["y"]
        rows = [row for row in self.load() if row.get(x) is not None and row.get(y) is not None]
        counted = any(isinstance(row[y], str) for row in rows)
        traces: dict[str, dict[str, Any]] = {}
        for row in rows:
            others = row[y] if counted else ", ".join(row[key] for key in row if key not in {x, y})
            trace = traces.setdefault(others, {"name": others, "x": [], "y": []})
            trace["x"].append(row[x])
            trace["y"].append(row[y])
        for trace in traces.values():
            if counted:
                del trace["y"]
            trace.update({"type": "histogram"} if counted else {"type": "scatter", "mode": "lines"})
        layout = {
            "title": {"text": hint.get("title", "")},
            "xaxis": {"title": {"text": x}},
            "yaxis": {"title": {"text": "images" if counted else y}},
            "legend": {"title": {"text": y if counted else ""}},
            "barmode": "stack",
        }
        return {"data": list(traces.values()), "layout": layout}


class FiguresDataset(partitions.PartitionedDataset):
    """Kedro's folder of pictures."""

    def preview(self) -> ImagePreview:
        """The first picture, in base64."""
        pictures = Path(self._path).rglob(f"*{self._filename_suffix}")
        return b64encode(min(pictures).read_bytes()).decode()
