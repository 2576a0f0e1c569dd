"""Writes the skeleton of a new op: `python tools/new_op.py FAMILY/NAME [--gradient]`.

The skeleton computes y = scale * x and is whole: it builds and passes every test, so that its
author replaces maths in something that works.

Its files are those of tools/op_template, a mirror of the project. FAMILY and OP in a path,
{{family}}, {{op}} and {{Op}} (the name in CamelCase) in a text stand for the new names. The lines
between {% if gradient %} or {% if not gradient %}, {% else %} and {% endif %} are kept or left out.
A file added there becomes part of every later op.
"""

from __future__ import annotations

import argparse
import ast
import keyword
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEMPLATES = Path(__file__).resolve().parent / "op_template"

PUBLIC = Path("dgpose_ext/__init__.py")
CHANGES = Path("CHANGELOG.md")
ALL = re.compile(r"^__all__ = (\[.*?\])", re.MULTILINE | re.DOTALL)

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
LONGEST_NAME = 32  # so that no line of the templates grows beyond 100 columns

NEXT = """
A working op that computes y = scale * x. Try it:
  make build && .venv/bin/python -m pytest -k {op}
Now replace its maths, in this order:
  csrc/{family}/{op}.h: the contract (maths, shapes, units)
  dgpose_ext/reference/{family}/{op}.py: the maths in plain torch, the oracle of the tests
  dgpose_ext/ops/{family}/{op}.py: signature, docs, checks, fake kernels
  dgpose_ext/testing/{op}.py: sample inputs, tolerances, wrong calls
  csrc/{family}/{op}_op.h, _cpu.cpp, _simd.inl: schema and loops
  csrc/{family}/{op}_cuda.cu, dgpose_ext/triton/{family}/{op}.py: the same on a GPU, then
    `python tools/compile_cuda.py --update` (its budget) and `make cuda-check`
  its tests, benchmark, docs page, line in CHANGELOG.md, row in README.md"""

# Folders of csrc/ that hold no ops.
RESERVED_FAMILIES = ("core", "torch")
# Suffixes by which CMakeLists.txt finds sources, and by which an op's own backward is named.
RESERVED_SUFFIXES = ("_cpu", "_cuda", "_op", "_bind", "_simd", "_test", "_backward")


def check_name(what: str, name: str) -> None:
    """ValueError unless `name` can be a folder, a Python module and a part of C++ names."""
    if not NAME.fullmatch(name) or keyword.iskeyword(name) or len(name) > LONGEST_NAME:
        raise ValueError(
            f"{what} must be lower_case_words of at most {LONGEST_NAME} characters "
            f"(no keyword of Python), got {name!r}"
        )


def parse(argument: str) -> tuple[str, str]:
    """(family, op) from "FAMILY/OP", both checked."""
    family, slash, op = argument.partition("/")
    if not slash:
        raise ValueError(f"the op must be given as FAMILY/NAME, got {argument!r}")
    check_name("FAMILY", family)
    check_name("NAME", op)
    if family in RESERVED_FAMILIES:
        raise ValueError(
            f"FAMILY must not be one of {', '.join(RESERVED_FAMILIES)}: no ops are there"
        )
    if op.endswith(RESERVED_SUFFIXES):
        raise ValueError(f"NAME must not end in one of {', '.join(RESERVED_SUFFIXES)}, got {op!r}")
    return family, op


def render(template: str, names: dict[str, str], gradient: bool) -> str:
    """The template with its names filled in and its conditional lines chosen."""
    lines, keep = [], True
    for line in template.splitlines():
        match line.strip():
            case "{% if gradient %}":
                keep = gradient
            case "{% if not gradient %}":
                keep = not gradient
            case "{% else %}":
                keep = not keep
            case "{% endif %}":
                keep = True
            case _ if keep:
                lines.append(line)
    text = "\n".join(lines) + "\n"
    for name, value in names.items():
        text = text.replace("{{" + name + "}}", value)
    return text


def skeleton(family: str, op: str, gradient: bool) -> dict[Path, str]:
    """All new files: path in the project -> text."""
    camel = "".join(word.capitalize() for word in op.split("_"))
    names = {"family": family, "op": op, "Op": camel}
    files = {}
    for source in sorted(TEMPLATES.rglob("*.template")):
        path = source.relative_to(TEMPLATES).with_suffix("")
        parts = [p.replace("FAMILY", family).replace("OP", op) for p in path.parts]
        files[Path(*parts)] = render(source.read_text(), names, gradient)
    packages = {p.parent / "__init__.py" for p in files if p.suffix == ".py" and family in p.parts}
    return files | {p: "" for p in sorted(packages) if not (ROOT / p).exists()}


def public_names(text: str) -> list[str]:
    """The names in __all__ of dgpose_ext/__init__.py."""
    found = ALL.search(text)
    if found is None:
        raise ValueError(f"{PUBLIC} must hold a list __all__")
    return list(ast.literal_eval(found[1]))


def refuse_existing(op: str, files: dict[Path, str]) -> None:
    """ValueError where the new files or the new public name would meet old ones."""
    taken = [str(path) for path in files if (ROOT / path).exists()]
    if op in public_names((ROOT / PUBLIC).read_text()):
        taken.append(f"dgpose_ext.{op}")
    # Test modules share one namespace, and a submodule would hide the function.
    taken += [str(p.relative_to(ROOT)) for p in ROOT.glob(f"tests/*/test_{op}.py")]
    taken += [str(p.relative_to(ROOT)) for p in ROOT.glob(f"dgpose_ext/{op}*") if p.stem == op]
    if taken:
        more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
        raise ValueError(f"{op} would meet what is there already: {taken[0]}{more}")


def with_public_name(text: str, family: str, op: str) -> str:
    """dgpose_ext/__init__.py with the import and the entry in __all__, both in order."""
    new = f"from dgpose_ext.ops.{family}.{op} import {op}"
    lines = text.splitlines()
    imports = [i for i, line in enumerate(lines) if line.startswith("from dgpose_ext.")]
    following = [i for i in imports if lines[i] > new]
    at = following[0] if following else imports[-1] + 1 if imports else lines.index("") + 1
    lines.insert(at, new)
    text = "\n".join(lines) + "\n"

    old = ALL.search(text)
    assert old is not None
    public = sorted([*public_names(text), op], key=lambda name: (name.islower(), name))
    one_line = "__all__ = [" + ", ".join(f'"{n}"' for n in public) + "]"
    long = "__all__ = [\n" + "".join(f'    "{n}",\n' for n in public) + "]"
    return text.replace(old[0], one_line if len(one_line) <= 100 else long)


def with_change(text: str, op: str) -> str:
    """CHANGELOG.md with a line at the top of the list under Unreleased."""
    found = re.search(r"^## \[?Unreleased\b.*\n", text, re.MULTILINE)
    if found is None:
        raise ValueError(f"{CHANGES} must have a heading `## Unreleased`")
    new = f"- New op `{op}`: y = scale * x.\n"
    section = text[found.end() :].split("\n## ")[0]
    item = re.search(r"^- ", section, re.MULTILINE)
    if item is None:
        return text[: found.end()] + "\n" + new + text[found.end() :]
    at = found.end() + item.start()
    return text[:at] + new + text[at:]


def tool(name: str) -> str | None:
    """A formatter of this Python's environment, or of PATH."""
    beside = str(Path(sys.executable).parent)
    return shutil.which(name, path=beside) or shutil.which(name)


def format_files(files: list[str]) -> list[str]:
    """Runs the formatters, since names change the length of lines; returns those not installed."""
    absent = []
    for name, arguments, suffixes in (
        ("ruff", ["format", "-q"], (".py",)),
        ("clang-format", ["-i"], (".h", ".cpp", ".inl", ".cu")),
    ):
        chosen = [file for file in files if file.endswith(suffixes)]
        program = tool(name)
        if program is None:
            absent.append(name)
        else:
            subprocess.run([program, *arguments, *chosen], check=True, cwd=ROOT)
    return absent


def main() -> None:
    """Checks everything first, then writes."""
    parser = argparse.ArgumentParser(description="Writes the skeleton of a new op.")
    parser.add_argument("op", metavar="FAMILY/NAME", help="for example heatmap/gaussian_heatmap")
    parser.add_argument(
        "--gradient", action="store_true", help="with autograd.Function and backward"
    )
    arguments = parser.parse_args()
    try:
        family, op = parse(arguments.op)
        files = skeleton(family, op, arguments.gradient)
        refuse_existing(op, files)
        files[PUBLIC] = with_public_name((ROOT / PUBLIC).read_text(), family, op)
        files[CHANGES] = with_change((ROOT / CHANGES).read_text(), op)
    except ValueError as error:
        sys.exit(f"error: {error}")
    for path, text in files.items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text)
        print(f"wrote {path}")
    names = [str(path) for path in files]
    if absent := format_files(names):
        print(f"not formatted, since {' and '.join(absent)} is missing: run `make format`")
    print(NEXT.format(family=family, op=op))


if __name__ == "__main__":
    main()
