"""Fails on a slowdown: `python -m benchmarks.compare OLD NEW [--max-slowdown 1.10] [--absolute]`.

OLD and NEW are result files, or folders of them. Our contenders (the torch reference apart) are
compared one by one, by their ratios to the limit measured in the same file: a slower machine is no
regression. `--absolute` compares times, for files of one machine. A slowdown counts where the ratio
of the medians is above --max-slowdown and the ranges from the 10th to the 90th percentile do not
meet.

Exit code: 0 no slowdown, 1 a slowdown, 2 files that cannot be read or have nothing in common.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Timing:
    """Median and range of one contender: seconds, or multiples of its limit."""

    median: float
    low: float
    high: float


#: (file, case, contender) -> timing; None where there is no limit to hold it against.
Timings = dict[tuple[str, str, str], Timing | None]


class ForeignFileError(ValueError):
    """JSON that is no result file."""


def load(path: Path) -> list[dict[str, Any]]:
    """The cases of one result file.

    Raises:
        ValueError: it cannot be read, or is something else.
    """
    try:
        document = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, list):
        raise ForeignFileError(
            f"{path} is no result file of `dgpose bench` or `python -m benchmarks`"
        )
    return results


def timings(path: Path, absolute: bool) -> Timings:
    """Our contenders of one file, or of all result files in a folder (foreign ones are left out).

    Raises:
        ValueError: a file cannot be read or is damaged, or there is no result file.
    """
    if path.is_dir():
        found: Timings = {}
        for file in sorted(path.glob("*.json")):
            with contextlib.suppress(ForeignFileError):
                found |= timings(file, absolute)
        if not found:
            raise ValueError(f"{path} has no result files")
        return found
    try:
        return {(path.stem, *key): value for key, value in _ours(load(path), absolute)}
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}") from None


def _ours(
    results: list[dict[str, Any]], absolute: bool
) -> Iterator[tuple[tuple[str, str], Timing | None]]:
    for case in results:
        rows = case["contenders"]
        # Another amount of work or of threads is another case.
        name = f"{case['case']} ({case['work']:g} {case['unit']}, {case['threads']} threads)"
        for contender, row in rows.items():
            limit = row.get("limit", case["limit"])
            ours = contender.startswith(case["ours"].partition(",")[0])
            if contender == limit or not ours or "reference" in contender:
                continue
            mine = Timing(row["median_s"], row["p10_s"], row["p90_s"])
            if absolute:
                yield (name, contender), mine
            elif limit is None:
                yield (name, contender), None
            else:
                floor = rows[limit]
                ratios = Timing(
                    mine.median / floor["median_s"],
                    mine.low / floor["p90_s"],
                    mine.high / floor["p10_s"],
                )
                yield (name, contender), ratios


def compare(old: Timings, new: Timings, max_slowdown: float) -> tuple[list[str], int]:
    """The lines of the table, and the number of slowdowns."""
    lines, slower, last = [], 0, ("", "")
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key), new.get(key)
        if key not in old or key not in new:
            verdict = f"only in {'OLD' if key in old else 'NEW'}"
        elif before is None or after is None:
            verdict = "not judged: no limit (see --absolute)"
        else:
            ratio = after.median / before.median
            verdict = f"{before.median:>10.4g} {after.median:>10.4g} {ratio:>8.2f} x"
            if ratio > max_slowdown and after.low > before.high:
                slower += 1
                verdict += "  SLOWER"
            elif ratio > max_slowdown:
                verdict += "  within the spread"
        if key[:2] != last:
            lines.append(f"{key[0]}, {key[1]}")
            last = key[:2]
        lines.append(f"  {key[2]:<40} {verdict}")
    return lines, slower


def main(arguments: list[str] | None = None) -> int:
    """Prints the comparison; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--max-slowdown", type=float, default=1.10)
    parser.add_argument("--absolute", action="store_true", help="compare times, not ratios")
    options = parser.parse_args(arguments)
    if not options.max_slowdown >= 1:
        parser.error(f"--max-slowdown must be at least 1, got {options.max_slowdown}")
    try:
        old, new = timings(options.old, options.absolute), timings(options.new, options.absolute)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    common = [key for key in old.keys() & new.keys() if old[key] and new[key]]
    lines, slower = compare(old, new, options.max_slowdown)
    unit = "seconds" if options.absolute else "multiples of the limit in the same file"
    print(f"{unit:<42} {'OLD':>10} {'NEW':>10}  NEW / OLD")
    print("\n".join(lines))
    if not common:
        print("error: OLD and NEW have nothing in common that can be judged", file=sys.stderr)
        return 2
    print(f"{len(common)} compared, {slower} slower than {options.max_slowdown:g} times OLD")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
