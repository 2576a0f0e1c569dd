"""`python -m benchmarks [OP ...]`: runs the benchmarks of the ops named, or all."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.harness import run_module


def main() -> None:
    """Runs and writes results/."""
    stems = sorted(p.stem.removeprefix("bench_") for p in Path(__file__).parent.glob("bench_*.py"))
    wanted = sys.argv[1:] or stems
    if unknown := set(wanted) - set(stems):
        sys.exit(f"no benchmark named {', '.join(sorted(unknown))}; there are {', '.join(stems)}")
    for stem in wanted:
        print(f"wrote {run_module(f'benchmarks.bench_{stem}')}")


if __name__ == "__main__":
    main()
