"""Hands the build to CMake (CMakeLists.txt); metadata stands in pyproject.toml.

Switches, from the environment:
  DGPOSE_BUILD_CORE=0    leave the compiled core out: everything runs on the torch reference
  DGPOSE_CUDA=0|1|auto   build the CUDA library, which needs nvcc and no GPU; auto (the default):
                         where torch has CUDA and nvcc is found
  DGPOSE_CUDA_ARCHITECTURES="80;90"   build it for these (default: see CMakeLists.txt)
  DGPOSE_BUILD_DIR=DIR   build folder (default build/<python tag>), kept between builds
  CMAKE_ARGS="..."       further arguments for CMake
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()


def with_cuda() -> bool:
    """Whether to build dgpose_ext._C_cuda; SystemExit where it is demanded and cannot be."""
    wanted = os.environ.get("DGPOSE_CUDA", "auto")
    if wanted not in ("0", "1", "auto"):
        sys.exit(f"DGPOSE_CUDA must be 0, 1 or auto, got {wanted!r}")
    nvcc = shutil.which("nvcc") or os.environ.get("CUDACXX")
    if wanted == "1" and not nvcc:
        sys.exit("DGPOSE_CUDA=1 needs nvcc (CUDA 13) on PATH, or CUDACXX naming it; none was found")
    if wanted != "auto":
        return wanted == "1"
    import torch

    return torch.version.cuda is not None and bool(nvcc)


class CMakeBuild(build_ext):
    """Builds dgpose_ext._C (and _C_cuda) where setuptools wants it: in the wheel, or in place."""

    def build_extensions(self) -> None:
        targets = [ext.name.removeprefix("dgpose_ext.") for ext in self.extensions]
        folder = Path(self.get_ext_fullpath(self.extensions[0].name)).resolve().parent
        tag = sys.implementation.cache_tag
        build = Path(os.environ.get("DGPOSE_BUILD_DIR", ROOT / "build" / tag)).resolve()
        cuda = "_C_cuda" in targets
        print(
            f"dgpose_ext: compiled core {'with' if cuda else 'without'} CUDA, "
            f"with {sys.executable}, build folder {build}",
            flush=True,
        )
        configure = [
            *("cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja"),
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={folder}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DDGPOSE_VERSION={self.distribution.get_version()}",
            f"-DDGPOSE_BUILD_CUDA={'ON' if cuda else 'OFF'}",
        ]
        if architectures := os.environ.get("DGPOSE_CUDA_ARCHITECTURES"):
            configure.append(f"-DDGPOSE_CUDA_ARCHITECTURES={architectures}")
        configure += shlex.split(os.environ.get("CMAKE_ARGS", ""))
        subprocess.run(configure, check=True)
        subprocess.run(["cmake", "--build", str(build), "--target", *targets], check=True)


libraries = []
if os.environ.get("DGPOSE_BUILD_CORE", "1") != "0":
    libraries = ["_C", "_C_cuda"] if with_cuda() else ["_C"]
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
    ext_modules=[Extension(f"dgpose_ext.{name}", sources=[]) for name in libraries],
    cmdclass={"build_ext": CMakeBuild},
    zip_safe=False,
)
