"""`dgpose index`: build, search, describe and time a PoseIndex."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dgpose.cli.terminal import fail, progress

# Nothing that imports torch here: `dgpose --help` would wait for it.
if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from dgpose_ext import PoseIndex

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True, help="Exact retrieval of poses from millions of embeddings."
)

_BATCH = 256
_SHOWN = 5


class Storage(str, Enum):
    """Precision of the codes that a search reads first; results are exact with each."""

    AUTO = "auto"
    INT8 = "int8"
    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


@app.command()
def build(
    embeddings: Annotated[
        Path,
        typer.Argument(
            help=".npy [N,D]; .npz with embeddings and maybe ids, poses [N,J,3]; or .parquet with "
            "columns embedding and maybe id, pose."
        ),
    ],
    out: Annotated[Path, typer.Option(help="File to write, such as poses.dgx.")],
    storage: Annotated[
        Storage, typer.Option(help="Of the codes; results are exact with each.")
    ] = Storage.AUTO,
    poses: Annotated[
        Path | None, typer.Option(help="Poses [N,J,3] in mm: .npy, or .npz with poses.")
    ] = None,
) -> None:
    """Build an index from a file of embeddings, read piece by piece.

    OUT is written whole or not at all: after an error the old file is still there.
    """
    import time

    from dgpose_ext.index_interchange import Rows, build_index, open_rows

    def watch(chunks: Iterator[Rows], total: int) -> Iterable[Rows]:
        return progress(chunks, total, "reading")

    with _failing(out):
        source = open_rows(embeddings, poses)
        _require_room(out, source.count * (4 * source.dim + 12 * source.joints + 8))
        start = time.perf_counter()
        index = build_index(source, storage.value, watch)
        built = time.perf_counter() - start
        index.save(out)
    typer.echo(f"{_describe(index)}, built in {built:.1f} s")
    typer.echo(f"saved {out}: {out.stat().st_size:,} bytes")


@app.command()
def search(
    index: Annotated[Path, typer.Argument(help="File of `dgpose index build`.")],
    queries: Annotated[
        Path, typer.Argument(help="Embeddings [B,D]: .npy, .npz or .parquet, as for build.")
    ],
    k: Annotated[int, typer.Option("-k", "--k", help="Rows to find for each query.")] = 10,
    mean_pose: Annotated[
        bool, typer.Option("--mean-pose", help="The mean of the k poses, not the rows.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help=".npz to write: scores and ids [B,k], or mean_poses [B,J,3] in mm."),
    ] = None,
) -> None:
    """The k rows with the largest inner product, for every query: exact, ties by row."""
    import time

    import numpy as np

    from dgpose_ext import PoseIndex
    from dgpose_ext.tensor_file import atomic_file

    with _failing(index):
        database = PoseIndex.load(index)
        rows = _read_queries(queries, database.dim)
    with _failing(out):
        if out is not None and out.suffix != ".npz":
            raise ValueError(f"out must be an .npz file, got {out}")
        parts: list[tuple[npt.NDArray[Any], ...]] = []
        seconds = 0.0
        batches = range(0, len(rows), _BATCH)
        for begin in progress(batches, len(batches), "searching"):
            start = time.perf_counter()
            batch = rows[begin : begin + _BATCH]
            if mean_pose:
                parts.append((database.search_mean_pose(batch, k).numpy(),))
            else:
                scores, ids = database.search(batch, k)
                parts.append((scores.numpy(), ids.numpy()))
            seconds += time.perf_counter() - start
        names = ("mean_poses",) if mean_pose else ("scores", "ids")
        found = {
            name: np.concatenate(column)
            for name, column in zip(names, zip(*parts, strict=True), strict=True)
        }
        if out is not None:
            with atomic_file(out) as file:
                np.savez(file, **found)  # type: ignore[arg-type]
    exact = f"{database.stats.survivors_per_query:,.0f} of {len(database):,} rows"
    typer.echo(f"{len(rows):,} queries in {1000 * seconds:,.1f} ms; {exact} a query scored exactly")
    if out is not None:
        typer.echo(f"saved {out}: {', '.join(f'{n} {list(a.shape)}' for n, a in found.items())}")
    else:
        _print_found(found)


@app.command()
def info(
    index: Annotated[Path, typer.Argument(help="File of `dgpose index build`.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the checksums of all arrays.")
    ] = False,
) -> None:
    """What a file holds. Its header and length are always checked, the arrays with --verify."""
    import time

    from dgpose_ext import PoseIndex
    from dgpose_ext.pose_index import FILE_VERSION

    with _failing(index):
        start = time.perf_counter()
        loaded = PoseIndex.load(index, verify=verify)
        seconds = time.perf_counter() - start
    size = index.stat().st_size
    for name, value in (
        ("rows", f"{len(loaded):,}"),
        ("D", str(loaded.dim)),
        ("J", str(loaded.joints or "no poses")),
        ("storage", loaded.storage),
        *((name, _short(value)) for name, value in loaded.metadata.items()),
        ("bytes", f"{size:,}, {size / max(len(loaded), 1):,.1f} a row"),
        ("version", str(FILE_VERSION)),
        ("checksum", "ok" if verify else "header ok, arrays not read (--verify)"),
        ("opened in", f"{1000 * seconds:,.1f} ms"),
    ):
        typer.echo(f"{name:<12}{value}")


@app.command()
def bench(
    index: Annotated[Path | None, typer.Argument(help="File of `dgpose index build`.")] = None,
    synthetic: Annotated[
        str | None, typer.Option(help="N,D: Gaussian rows in the place of an index.")
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", min=1, help="Rows to find.")] = 100,
    batch: Annotated[
        str,
        typer.Option("-B", "--batch", help="Queries at once: a number, or several with commas."),
    ] = "1,16,64,256",
    storage: Annotated[
        Storage, typer.Option(help="Of the synthetic index; a file has its own.")
    ] = Storage.AUTO,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads; all if not given.")] = None,
    out: Annotated[Path | None, typer.Option(help=".json to write.")] = None,
) -> None:
    """Time the index beside faiss and torch, each in a process of its own.

    Queries are rows of the index with noise. "same" is the share of queries for which a peer finds
    the same rows in the same order: two float32 sums of other order may rank close rows otherwise.
    """
    import json

    from rich.console import Console

    from dgpose.inference.index_bench import run_benchmark
    from dgpose_ext.tensor_file import write_bytes_atomically

    with _failing(index if index is not None else out):
        data: Path | list[int]
        if index is not None and synthetic is None:
            data = index
        elif index is None and synthetic is not None:
            data = _numbers("synthetic", synthetic, "N,D")
            if len(data) != 2:
                raise ValueError(f"synthetic must be N,D, got {synthetic!r}")
        else:
            raise ValueError("either an index file or --synthetic N,D must be given")
        report = run_benchmark(
            data,
            k=k,
            batches=_numbers("batch", batch, "numbers with commas"),
            storage=storage.value,
            threads=threads,
            watch=lambda names: progress(names, len(names), "timing"),
        )
    with _failing(out):
        Console().print(_table(report))
        for name, reason in report["absent"].items():
            typer.echo(f"not timed: {name}: {reason}")
        if out is not None:
            write_bytes_atomically(out, (json.dumps(report, indent=1) + "\n").encode())
            typer.echo(f"saved {out}")


@contextmanager
def _failing(path: Path | None) -> Iterator[None]:
    """Errors as one line; a full disk or a read-only place with the name of the file."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.strerror is not None and path is not None:
            error.filename = str(path)
        fail(error)
    except (ValueError, TypeError, RuntimeError, MemoryError, ModuleNotFoundError) as error:
        fail(error)


def _require_room(out: Path, size: int) -> None:
    """OSError where the file cannot be written: better now than after an hour of building."""
    import errno
    import os
    import shutil

    folder = out.absolute().parent
    while not folder.exists():
        folder = folder.parent
    if out.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(out))
    if not os.access(folder, os.W_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(out))
    free = shutil.disk_usage(folder).free
    if free < size:
        reason = f"{os.strerror(errno.ENOSPC)} ({size:,} bytes are needed, {free:,} are free)"
        raise OSError(errno.ENOSPC, reason, str(out))


def _read_queries(path: Path, dim: int) -> npt.NDArray[np.float32]:
    import numpy as np

    from dgpose_ext.index_interchange import open_rows

    source = open_rows(path)
    if source.dim != dim:
        raise ValueError(
            f"{path}: queries must have shape [B, D] with D = {dim}, "
            f"got {[source.count, source.dim]}"
        )
    if source.count == 0:
        raise ValueError(f"{path}: must hold at least one query")
    rows: npt.NDArray[np.float32] = np.concatenate([c.embeddings for c in source.chunks()])
    bad = ~np.isfinite(rows).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{path}: queries must be finite, got NaN or Inf in row {int(bad.argmax())}"
        )
    return rows


def _short(value: Any) -> str:
    """A value of the metadata on one line."""
    text = str(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def _describe(index: PoseIndex) -> str:
    poses = f", J={index.joints}" if index.joints else ", no poses"
    return f"{len(index):,} rows, D={index.dim}{poses}, {index.storage}"


def _print_found(found: dict[str, npt.NDArray[Any]]) -> None:
    if "mean_poses" in found:
        for query, pose in enumerate(found["mean_poses"][:_SHOWN]):
            first = ", ".join(f"{value:.1f}" for value in pose[0])
            typer.echo(f"query {query}: joint 0 at ({first}) mm, {len(pose)} joints")
    else:
        for query, (scores, ids) in enumerate(
            zip(found["scores"][:_SHOWN], found["ids"][:_SHOWN], strict=True)
        ):
            pairs = [f"{i} ({s:.6g})" for s, i in zip(scores[:_SHOWN], ids, strict=False) if i >= 0]
            more = " ..." if len(ids) > _SHOWN else ""
            typer.echo(f"query {query}: {', '.join(pairs)}{more}")
    total = len(next(iter(found.values())))
    if total > _SHOWN:
        typer.echo(f"... {total - _SHOWN} more: --out RESULT.npz saves all")


def _numbers(name: str, text: str, form: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise ValueError(f"{name} must be {form}, each at least 1, got {text!r}")
    return numbers


def _table(report: dict[str, Any]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(
        title=f"{report['data']}, k={report['k']}, {report['threads']} thread(s), "
        f"{report['environment']['capability']}",
        caption="ms for a batch (median) and how often as long as ours; same: see --help",
        box=box.SIMPLE,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("")
    batches = [row["batch"] for row in report["contenders"][report["ours"]]]
    for size in batches:
        table.add_column(f"B={size}", justify="right", no_wrap=True)
    table.add_column("same", justify="right")
    ours = {row["batch"]: row["median_s"] for row in report["contenders"][report["ours"]]}
    for name, rows in report["contenders"].items():
        cells = [
            f"{1000 * row['median_s']:,.2f}  {row['median_s'] / ours[row['batch']]:.2f}x"
            for row in rows
        ]
        same = sum(row["same"] * row["batch"] for row in rows) / sum(batches)
        style = "bold" if name == report["ours"] else None
        table.add_row(name, *cells, f"{100 * same:.0f} %", style=style)
    return table
