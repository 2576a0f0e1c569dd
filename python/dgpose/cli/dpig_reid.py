"""`dgpose dpig reid`: people found again by DPIG's codes, and by what else there is."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dgpose.cli.eval_options import ReportOptions
from dgpose.cli.option_groups import with_groups
from dgpose.cli.options import Threads, use_threads
from dgpose.cli.terminal import counted, fail

if TYPE_CHECKING:
    from torch import Tensor

    from dgpose.data.person_pool import PersonPool
    from dgpose.data.reid_sets import ReidSet
    from dgpose.metrics.reidentification import Reidentification

__all__ = ["reid"]


class ReidPeople(str, Enum):
    """Who is to be found."""

    RENDERED = "rendered"
    MARKET = "market"


@with_groups
def reid(
    *,
    people: Annotated[
        ReidPeople,
        typer.Option(help="Rendered people who share outfits, or Market-1501's test part."),
    ] = ReidPeople.RENDERED,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of Market-1501; of rendered people one with mocap/, whose poses they are "
            "then in.",
            envvar="DGPOSE_DATA",
        ),
    ] = None,
    by: Annotated[
        list[str],
        typer.Option(
            help="foreground (the codes of --model), histogram (colours of the upper and the lower "
            "body), chance, or a file of dgpose train reid; can be given several times."
        ),
    ] = ["foreground", "histogram", "chance"],  # noqa: B006 (typer copies it)
    model: Annotated[
        str, typer.Option(help="Weight file of dgpose train dpig-stage1, or a shipped model.")
    ] = "dpig_small",
    persons: Annotated[int, typer.Option(min=2, help="Rendered people who are looked for.")] = 150,
    seed: Annotated[int, typer.Option(min=0, help="Of rendered people, and of chance.")] = 0,
    output: ReportOptions,
    device: Annotated[str, typer.Option(help="Of the model: cpu, cuda, ...")] = "cpu",
    threads: Threads = None,
) -> None:
    """Rank-1, rank-5, rank-10 and mAP of person re-identification, by Market-1501's protocol.

    Images of the query's person from the query's camera are left out, junk is not counted,
    distractors are wrong. Average precision is that of the released evaluation (trapezoidal rule).
    """
    from dgpose.data.reid_sets import market_reid_set, rendered_reid_set
    from dgpose.metrics.reid_features import reidentify_by

    use_threads(threads)
    try:
        size, features = _features(by, model, device, seed)
        with counted("reading") as watch:
            if people is ReidPeople.RENDERED:
                shown = rendered_reid_set(
                    data, persons=persons, distractors=persons // 3, seed=seed, size=size,
                    progress=watch,
                )  # fmt: skip
            elif data is None:
                raise ValueError("--data must name the folder of market")
            else:
                shown = market_reid_set(data, size=size, progress=watch)
        if "foreground" in features:
            _tell_hidden(shown)
        found = {name: reidentify_by(function, shown) for name, function in features.items()}
        scores = {name: scores.as_json() for name, scores in found.items()}
        text = output.save({"people": people.value, "model": model, "by": scores})
    except (ValueError, OSError, RuntimeError) as error:
        fail(error)
    output.tell(text, lambda: _print(found, shown, people))


def _features(
    names: list[str], model: str, device: str, seed: int
) -> tuple[tuple[int, int], dict[str, Callable[[PersonPool], Tensor]]]:
    """(H, W) of images, and what gives their features, by name."""
    from dgpose.inference.person_keypoints import moved
    from dgpose.metrics.reid_features import chance, color_histograms, foreground_codes
    from dgpose.model_zoo import model_path
    from dgpose.models.dpig import load_dpig
    from dgpose.nn.reid_network import load_reid_network

    size = (128, 64)
    found: dict[str, Callable[[PersonPool], Tensor]] = {}
    for name in names:
        if name == "foreground":
            dpig = moved(load_dpig(model_path(model)), device)
            dpig.require("stage1")
            size = dpig.config.size
            found[name] = lambda pool, dpig=dpig: foreground_codes(dpig, pool)  # type: ignore[misc]
        elif name == "histogram":
            found[name] = color_histograms
        elif name == "chance":
            found[name] = chance(seed)
        elif Path(name).is_file():
            network = moved(load_reid_network(name)[0], device)
            found[name] = lambda pool, network=network: network.embed(pool.images)  # type: ignore[misc]
        else:
            raise ValueError(
                f"--by must be foreground, histogram, chance or a file, got {name!r}: no such file"
            )
    return size, found


def _tell_hidden(shown: ReidSet) -> None:
    """Says how many images show no joint: all such people have one code, 0.

    Raises:
        ValueError: a query or a gallery in which no image shows any.
    """
    seen = [pool.visible.any(1) for pool in (shown.query, shown.gallery)]
    if not all(bool(some.any()) for some in seen):
        raise ValueError(
            "--by foreground must have keypoints (market-annotation-test.csv), got images without"
        )
    hidden = sum(int((~some).sum()) for some in seen)
    if hidden:
        count = f"{hidden:,} of {sum(map(len, seen)):,}"
        typer.echo(f"{count} images show no joint: their foreground code is 0", err=True)


def _print(found: dict[str, Reidentification], shown: ReidSet, people: ReidPeople) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from dgpose.metrics.published import REID_RESULTS
    from dgpose.metrics.reidentification import RANKS

    scores = next(iter(found.values()))
    counts = f"{scores.queries:,} queries, {scores.gallery:,} images in the gallery"
    typer.echo(f"{shown.query.source}: {counts}")
    table = Table(box=box.SIMPLE_HEAD, padding=0, show_edge=False)
    table.add_column("by", overflow="fold")
    for column in (*(f"rank-{k}, %" for k in RANKS), "mAP, %"):
        table.add_column(column, justify="right")
    for name, row in found.items():
        ranks = [f"{100 * row.rank(k):.1f}" for k in RANKS]
        table.add_row(name, *ranks, f"{100 * row.mean_average_precision:.1f}")
    if people is ReidPeople.MARKET:
        table.add_section()
        for published in REID_RESULTS:
            table.add_row(f"{published.method}, published", f"{published.rank1:.1f}")
    Console().print(table)
