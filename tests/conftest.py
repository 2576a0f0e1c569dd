"""Fixtures of all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(2)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data: DGPOSE_DATA, or ../shared/data beside the project where it exists.

    Without it the test is skipped, or fails under DGPOSE_REQUIRE_DATA=1 (CI).
    """
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DGPOSE_DATA", default))
    if folder.is_dir():
        return folder
    reason = f"no real data at {folder} (set DGPOSE_DATA)"
    if os.environ.get("DGPOSE_REQUIRE_DATA") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
