"""Experiments with DPIG."""
