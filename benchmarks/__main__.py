"""`python -m benchmarks [OP ...]`: runs the benchmarks of the ops named, or all."""

from __future__ import annotations

import sys

from .harness import RESULTS, modules, run_module


def main() -> None:
    """Runs and writes results/."""
    known = modules()
    wanted = sys.argv[1:] or list(known)
    if unknown := set(wanted) - set(known):
        sys.exit(f"no benchmark named {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    for op in wanted:
        path = RESULTS / f"{op}.json"
        run_module(known[op], path)
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
