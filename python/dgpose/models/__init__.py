"""The published systems, a package each."""
