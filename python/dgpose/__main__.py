"""`python -m dgpose`: the command line."""

from dgpose.cli import main

main()
