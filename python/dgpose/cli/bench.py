"""`dgpose bench`: the kernels beside their peers and limits, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dgpose.cli.terminal import fail

__all__ = ["bench"]


def bench(
    ops: Annotated[
        list[str] | None, typer.Argument(metavar="[OP]...", help="Ops to time; all if none.")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="A .json file (one op), or a folder for OP.json.")
    ] = Path("dgpose_bench"),
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Turns of each contender; 3 if not given.")
    ] = None,
    list_ops: Annotated[bool, typer.Option("--list", help="List ops and cases, and stop.")] = False,
) -> None:
    """Time ours on every backend that is here, each peer, and the limit; save them as JSON.

    Every contender runs in a process of its own, in turn. What is not installed is listed as such.
    The limit is what no kernel passes that does the same work: memory written or read once.
    """
    from rich.console import Console

    harness = _harness()
    known = harness.modules()
    try:
        if unknown := [op for op in ops or [] if op not in known]:
            raise ValueError(
                f"OP must be one of {', '.join(known)}, got {', '.join(map(repr, unknown))}"
            )
        if list_ops:
            for op in ops or known:
                typer.echo(op)
                for case in harness.cases_of(known[op]):
                    typer.echo(f"  {case.name} ({len(case.contenders)} contenders)")
            return
        wanted = dict.fromkeys(ops or known)
        if out.suffix == ".json" and len(wanted) > 1:
            raise ValueError(f"out must be a folder for several ops, got {out}")
        console = Console()
        for op in wanted:
            path = out if out.suffix == ".json" else out / f"{op}.json"
            with Console(stderr=True).status(op) as status:
                harness.run_module(
                    known[op],
                    path,
                    repeats=repeats,
                    report=lambda result, op=op: console.print(_table(op, result)),
                    progress=lambda text, op=op, status=status: status.update(f"{op}, {text}"),
                )
            typer.echo(f"saved {path}")
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)


def _harness() -> Any:
    """benchmarks/harness.py: within the installed package, or beside it in a checkout."""
    import sys
    from importlib import import_module

    import dgpose

    package = Path(dgpose.__file__).resolve().parent
    if (package / "benchmarks").is_dir():
        return import_module("dgpose.benchmarks.harness")
    checkout = str(package.parents[1])
    if checkout not in sys.path:
        sys.path.append(checkout)
    return import_module("benchmarks.harness")


def _table(op: str, result: dict[str, Any]) -> Any:
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    rows, name = result["contenders"], result["ours"]
    ours = rows[name]["median_s"]
    table = Table(
        title=f"{op}: {result['case']}, {result['threads']} thread(s)",
        caption=result["note"] or None,
        box=box.SIMPLE,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("", overflow="fold")
    by_call = "p99_s" in rows[name]
    spreads = ("10 % .. 90 %", "99 %") if by_call else ("10 % .. 90 %",)
    for heading in ("median", *spreads, f"{result['unit']}/s", "x ours", "x limit"):
        table.add_column(heading, justify="right", no_wrap=True)
    for contender, row in sorted(rows.items(), key=lambda item: item[1]["median_s"]):
        median = row["median_s"]
        limit = rows.get(row.get("limit", result["limit"]))
        is_limit = limit is row
        unit, scale = ("us", 1e6) if median < 1e-2 else ("ms", 1e3)
        table.add_row(
            Text(contender + " (limit)" * is_limit),
            f"{median * scale:,.1f} {unit}",
            f"{row['p10_s'] * scale:,.1f} .. {row['p90_s'] * scale:,.1f}",
            *([f"{row['p99_s'] * scale:,.1f}"] if by_call else []),
            f"{result['work'] / median:,.0f}",
            f"{median / ours:.2f}",
            "" if limit is None else f"{median / limit['median_s']:.2f}",
            style="bold" if contender == name else "cyan" if is_limit else None,
        )
    absent = "".join(f"  {contender}: {why}\n" for contender, why in result["absent"].items())
    return Group(table, Text(absent, style="dim"))
