"""How the experiments give their results out: files, tables and figures."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import environment
from dgpose_ext.tensor_file import write_bytes_atomically

RESULTS = Path(__file__).parent / "results"


def save_results(name: str, facts: Mapping[str, Any]) -> None:
    """experiments/results/NAME.json, with the machine it was measured on."""
    document = json.dumps({"environment": environment(), **facts}, indent=1)
    write_bytes_atomically(RESULTS / f"{name}.json", (document + "\n").encode())


def save_figure(figure: Any, path: Path) -> None:
    """A matplotlib figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_bytes_atomically(path, buffer.getvalue())


def table_row(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def print_header(columns: Sequence[str]) -> None:
    """The two lines that a Markdown table begins with."""
    print(table_row(columns))
    print(table_row(["---"] * len(columns)))


def mean_std(values: Sequence[float | None], digits: int = 1) -> str:
    """Mean ± standard deviation of what is known, for tables; a dash where nothing is."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{np.mean(known):.{digits}f}"
    return f"{mean} ± {np.std(known, ddof=1):.{digits}f}" if len(known) > 1 else mean
