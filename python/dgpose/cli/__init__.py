"""The command line, `dgpose`; `dgpose.cli.app` puts it together from a module for each family."""

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
