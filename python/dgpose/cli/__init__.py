"""The command line: `dgpose hand run|live|generate|refine`, `dgpose models`, `dgpose heatmap`,
`dgpose crop`, `dgpose index build`, `dgpose export hand`, `dgpose demo`, `dgpose bench`,
`dgpose eval hand`, `dgpose train hand|crossing-nets`, `dgpose data check`,
`dgpose reproduce crossing-nets`."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Entry point of the `dgpose` command."""
    from dgpose._errors import MissingExtraError, systems_required

    try:
        with systems_required():
            from dgpose.cli.app import app

            app(prog_name="dgpose")
    except MissingExtraError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
