"""MMPose's own NumPy codecs, as an oracle.

`import mmpose` needs mmcv, which has no build for a current torch; the files of its codecs need
NumPy, OpenCV and torch only and are loaded alone. `make test` installs the wheel without its
dependencies.
"""

from __future__ import annotations

import importlib
import os
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

VERSION = "1.3.2"
_PACKAGE = "mmpose_codecs_utils"


def mmpose_codec(name: str) -> Any:
    """The module mmpose/codecs/utils/<name>.py.

    Without the wheel the test is skipped, or fails under DGPOSE_REQUIRE_DATA=1 (CI).
    """
    try:
        wheel = metadata.distribution("mmpose")
    except metadata.PackageNotFoundError:
        wheel = None
    if wheel is None or wheel.version != VERSION:
        reason = f"no mmpose {VERSION} (pip install --no-deps mmpose=={VERSION})"
        if os.environ.get("DGPOSE_REQUIRE_DATA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    pytest.importorskip("cv2")
    if _PACKAGE not in sys.modules:  # a package of that folder, whose __init__.py does not run
        package = ModuleType(_PACKAGE)
        package.__path__ = [str(Path(str(wheel.locate_file("mmpose/codecs/utils"))))]
        sys.modules[_PACKAGE] = package
    return importlib.import_module(f"{_PACKAGE}.{name}")
