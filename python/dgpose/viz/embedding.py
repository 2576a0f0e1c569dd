"""Pictures of embeddings: their first two principal components, coloured by what the pose is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dgpose.metrics.embedding import EmbeddingAnalysis
from dgpose.viz.drawing import Picture

__all__ = ["embedding_picture"]


def embedding_picture(analyses: Mapping[str, EmbeddingAnalysis], title: str) -> Picture:
    """Two plots for each embedding: points coloured by the body's heading, and by leg spread.

    Args:
        analyses: by name, such as "poses" and "images"; of at least two components.
        title: the headline.
    """
    figure = Figure(figsize=(11, 4.6 * len(analyses)), layout="constrained")
    canvas: Any = FigureCanvasAgg(figure)
    figure.suptitle(title)
    grid = figure.subplots(len(analyses), 2, squeeze=False)
    for row, (name, analysis) in zip(grid, analyses.items(), strict=True):
        x, y = analysis.components[:, 0], analysis.components[:, 1]
        degrees = np.degrees(analysis.heading)
        share = 100 * analysis.variance_share
        colourings = (
            (degrees, "twilight", (-180, 180), "heading, degrees (0: towards the camera)",
             "heading R", analysis.heading_correlation),
            (analysis.leg_spread_mm, "viridis", (None, None), "distance of the ankles, mm",
             "ankles |r|", analysis.leg_correlation),
        )  # fmt: skip
        for plot, (values, colors, (low, high), label, what, numbers) in zip(
            row, colourings, strict=True
        ):
            points = plot.scatter(
                x, y, c=values, cmap=colors, vmin=low, vmax=high, s=6, linewidths=0
            )
            figure.colorbar(points, ax=plot, label=label)
            plot.set(
                xlabel=f"component 1 ({share[0]:.0f} % of the variance)",
                ylabel=f"component 2 ({share[1]:.0f} %)",
                title=f"{name}: {what} of components 1 and 2: {numbers[0]:.2f}, {numbers[1]:.2f}",
            )
            plot.grid(alpha=0.3)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
