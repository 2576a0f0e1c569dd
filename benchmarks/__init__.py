"""Benchmarks: kernels beside their peers and the physical limit, in one run."""
