"""Compiles every CUDA kernel to machine code, without a GPU, and holds it to a budget.

`python tools/compile_cuda.py` runs nvcc on each csrc/*/*_cuda.cu for sm_80, sm_90 and sm_120 and
compares what ptxas says of registers, stack and spills with tools/cuda_budget.json. A kernel that
grew, or one without a budget, is an error; `--update` writes the budget anew. Exit status: 0 within
budget, 1 not, 2 could not compile.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
BUDGET = ROOT / "tools/cuda_budget.json"
ARCHITECTURES = ("80", "90", "120")
# The flags of CMakeLists.txt.
FLAGS = ("-std=c++20", "-O3", "--fmad=false", "-lineinfo", "-Xptxas=-v,-warn-spills")


class Usage(NamedTuple):
    """What one kernel takes of a multiprocessor."""

    registers: int
    stack_bytes: int
    spill_bytes: int
    shared_bytes: int


#: File -> kernel -> architecture -> usage.
Table = dict[str, dict[str, dict[str, Usage]]]


def parse(report: str) -> dict[str, Usage]:
    """Usage by mangled name from the output of `ptxas -v`."""
    kernels = {}
    for part in report.split("Compiling entry function '")[1:]:
        name = part.partition("'")[0]
        stack, stores, loads = (
            int(re.search(pattern, part)[1])  # type: ignore[index]
            for pattern in (
                r"(\d+) bytes stack frame",
                r"(\d+) bytes spill stores",
                r"(\d+) bytes spill loads",
            )
        )
        registers = int(re.search(r"Used (\d+) registers", part)[1])  # type: ignore[index]
        shared = re.search(r"(\d+) bytes smem", part)
        kernels[name] = Usage(registers, stack, stores + loads, int(shared[1]) if shared else 0)
    return kernels


def readable(names: list[str]) -> list[str]:
    """Names as a reader knows them: without namespaces, arguments and return type."""
    demangled = subprocess.run(
        ["c++filt"], input="\n".join(names), check=True, capture_output=True, text=True
    ).stdout.splitlines()
    out = []
    for name in demangled:
        short = name.replace("(anonymous namespace)::", "").replace("dgpose::", "")
        short = short.removeprefix("void ")
        depth = 0  # the arguments begin at the first parenthesis outside <...>
        for i, c in enumerate(short):
            depth += {"<": 1, ">": -1}.get(c, 0)
            if c == "(" and depth == 0:
                short = short[:i]
                break
        out.append(short)
    return out


def compile_file(nvcc: str, source: Path, architecture: str, folder: Path) -> dict[str, Usage]:
    """Compiles one file to a cubin in `folder`: usage by readable name, or RuntimeError."""
    cubin = folder / f"{source.stem}.sm_{architecture}.cubin"
    command = [
        *(nvcc, *FLAGS, f"-I{ROOT / 'csrc'}", f"-arch=sm_{architecture}"),
        *("-cubin", str(source), "-o", str(cubin)),
    ]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise RuntimeError(f"{source.name} for sm_{architecture}:\n{result.stderr}")
    usage = parse(result.stderr)
    return dict(zip(readable(list(usage)), usage.values(), strict=True))


def compile_all(nvcc: str, sources: list[Path], folder: Path) -> Table:
    """Usage of every kernel of `sources` on every architecture."""
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(source, architecture) for source in sources for architecture in ARCHITECTURES]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda job: compile_file(nvcc, *job, folder), jobs))
    table: Table = {}
    for (source, architecture), kernels in zip(jobs, results, strict=True):
        by_kernel = table.setdefault(source.name, {})
        for kernel, usage in kernels.items():
            by_kernel.setdefault(kernel, {})[architecture] = usage
    return table


def compare(table: Table, budget: Table) -> list[str]:
    """One line for every kernel that takes more than its budget, or has none."""
    complaints = []
    for file, kernels in table.items():
        for kernel, usages in kernels.items():
            allowed = budget.get(file, {}).get(kernel)
            if allowed is None:
                complaints.append(f"{file}: {kernel} has no budget")
                continue
            for architecture, usage in usages.items():
                if architecture not in allowed:
                    complaints.append(f"{file}: {kernel} has no budget for sm_{architecture}")
                    continue
                limit = Usage(*allowed[architecture])
                complaints += [
                    f"{file}: {kernel} on sm_{architecture}: {field} {got}, budget {most}"
                    for field, got, most in zip(Usage._fields, usage, limit, strict=True)
                    if got > most
                ]
    return complaints


def as_json(table: Table) -> str:
    """The budget as text, a line a kernel: architecture -> [registers, stack, spills, shared]."""
    files = []
    for file, kernels in sorted(table.items()):
        lines = (f"  {json.dumps(k)}: {json.dumps(u)}" for k, u in sorted(kernels.items()))
        files.append(f" {json.dumps(file)}: {{\n" + ",\n".join(lines) + "\n }")
    return "{\n" + ",\n".join(files) + "\n}\n"


def main() -> int:
    """Compiles, prints a table a file, compares."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--update", action="store_true", help="write tools/cuda_budget.json anew")
    parser.add_argument("--out", type=Path, default=ROOT / "build/cubin", help="folder for cubins")
    arguments = parser.parse_args()
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        print("error: nvcc is not on PATH; the CUDA toolkit (13.0) brings it", file=sys.stderr)
        return 2
    sources = sorted(ROOT.glob("csrc/*/*_cuda.cu"))
    try:
        table = compile_all(nvcc, sources, arguments.out)
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for file, kernels in table.items():
        print(f"{file}: {len(kernels)} kernels")
        for architecture in ARCHITECTURES:
            usages = [usage[architecture] for usage in kernels.values()]
            print(
                f"  sm_{architecture:<4} registers {min(u.registers for u in usages)}"
                f"-{max(u.registers for u in usages)}, "
                f"shared memory up to {max(u.shared_bytes for u in usages)} bytes, "
                f"spills {sum(u.spill_bytes for u in usages)} bytes"
            )
    if arguments.update:
        temporary = BUDGET.with_suffix(".tmp")
        temporary.write_text(as_json(table))
        temporary.replace(BUDGET)
        print(f"wrote {BUDGET.relative_to(ROOT)}")
        return 0
    budget: Table = json.loads(BUDGET.read_text()) if BUDGET.exists() else {}
    complaints = compare(table, budget)
    for line in complaints:
        print(f"over budget: {line}", file=sys.stderr)
    if complaints:
        print("if the growth is wanted: python tools/compile_cuda.py --update", file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
