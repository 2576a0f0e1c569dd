"""Hands the build to CMake (CMakeLists.txt); metadata stands in pyproject.toml.

Switches, from the environment:
  DGPOSE_BUILD_CORE=0    leave the compiled core out: everything runs on the torch reference
  DGPOSE_BUILD_DIR=DIR   build folder (default build/<python tag>), kept between builds
  CMAKE_ARGS="..."       further arguments for CMake
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


class CMakeBuild(build_ext):
    """Builds dgpose_ext._C where setuptools wants it: in the wheel, or in place for -e."""

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        tag = sys.implementation.cache_tag
        build = Path(os.environ.get("DGPOSE_BUILD_DIR", ROOT / "build" / tag)).resolve()
        print(f"dgpose_ext: compiled core with {sys.executable}, build folder {build}", flush=True)
        configure = [
            *("cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja"),
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={target}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DDGPOSE_VERSION={self.distribution.get_version()}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build), "--target", "_C"], check=True)


with_core = os.environ.get("DGPOSE_BUILD_CORE", "1") != "0"
setup(
    packages=[
        *find_packages(".", include=["dgpose_ext", "dgpose_ext.*"]),
        *find_packages("python", include=["dgpose", "dgpose.*"]),
        "dgpose.benchmarks",
    ],
    package_dir={
        "dgpose": "python/dgpose",
        "dgpose_ext": "dgpose_ext",
        "dgpose.benchmarks": "benchmarks",
    },
    package_data={
        "dgpose_ext": ["py.typed", "*.pyi"],
        "dgpose": ["py.typed", "weights/*"],
    },
    ext_modules=[Extension("dgpose_ext._C", sources=[])] if with_core else [],
    cmdclass={"build_ext": CMakeBuild},
    zip_safe=False,
)
