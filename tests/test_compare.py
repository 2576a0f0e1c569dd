"""benchmarks/compare.py: what counts as a slowdown, and what as a broken file."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "compare.py"


def row(median: float, spread: float = 0.02) -> dict[str, Any]:
    return {"median_s": median, "p10_s": median * (1 - spread), "p90_s": median * (1 + spread)}


def document(ours: float = 2.0, spread: float = 0.02, machine: float = 1.0) -> dict[str, Any]:
    """Ours at `ours` times the limit, on a machine that is `machine` times as slow."""
    rows = {
        "dgpose_ext": row(ours * machine, spread),
        "dgpose_ext reference (torch)": row(99 * machine),
        "copy": row(1.0 * machine),
        "a peer": row(5.0),
    }
    case = {"case": "a case", "unit": "maps", "work": 4, "threads": 2, "ours": "dgpose_ext"}
    return {"results": [{**case, "limit": "copy", "contenders": rows}]}


def compare(tmp_path: Path, old: Any, new: Any, *options: str) -> subprocess.CompletedProcess[str]:
    paths = []
    for name, content in (("old.json", old), ("new.json", new)):
        folder = tmp_path / name.removesuffix(".json")
        folder.mkdir(exist_ok=True)
        path = folder / "op.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        paths.append(str(path))
    return run(*paths, *options)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True)


@pytest.mark.parametrize(
    ("new", "options", "code"),
    [
        (document(), (), 0),
        (document(2.15), (), 0),  # 7.5 %
        (document(2.5), (), 1),
        (document(2.5), ("--max-slowdown", "1.3"), 0),
        (document(1.0), (), 0),
        (document(2.5, spread=0.3), (), 0),  # within the spread
        (document(2.0, machine=3), (), 0),  # a slower machine
        (document(2.0, machine=3), ("--absolute",), 1),
        (document(2.5, machine=0.5), (), 1),  # a faster machine hides nothing
        (document(2.5, machine=0.5), ("--absolute",), 0),
    ],
)
def test_slowdown(tmp_path: Path, new: Any, options: tuple[str, ...], code: int) -> None:
    result = compare(tmp_path, document(), new, *options)
    assert result.returncode == code, result.stdout + result.stderr
    assert ("SLOWER" in result.stdout) == (code == 1)
    assert "1 compared" in result.stdout
    assert "peer" not in result.stdout
    assert "reference" not in result.stdout


def test_a_backend_on_a_gpu_has_its_own_limit(tmp_path: Path) -> None:
    old, new = document(), document()
    for content, seconds in ((old, 0.3), (new, 0.9)):
        rows = content["results"][0]["contenders"]
        rows["dgpose_ext, cuda"] = row(seconds) | {"limit": "copy, GPU"}
        rows["copy, GPU"] = row(seconds / 2)
    result = compare(tmp_path, old, new)
    assert result.returncode == 0, result.stdout
    assert "2 compared" in result.stdout
    old["results"][0]["contenders"]["copy, GPU"] = row(0.3)
    assert compare(tmp_path, old, new).returncode == 1


def test_only_what_both_have_is_compared(tmp_path: Path) -> None:
    old, new = document(), document()
    rows = new["results"][0]["contenders"]
    rows["dgpose_ext, uint8"] = row(9.0)
    result = compare(tmp_path, old, new)
    assert result.returncode == 0
    assert "only in NEW" in result.stdout
    for change in ({"threads": 1}, {"work": 8}, {"case": "another"}):
        other = copy.deepcopy(new)
        other["results"][0] |= change
        result = compare(tmp_path, old, other)
        assert result.returncode == 2
        assert "nothing in common" in result.stderr


def test_without_a_limit_only_times_are_judged(tmp_path: Path) -> None:
    old, new = document(), document(4.0)
    for content in (old, new):
        content["results"][0]["limit"] = None
    assert compare(tmp_path, old, new).returncode == 2
    assert compare(tmp_path, old, new, "--absolute").returncode == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "no result file"),
        ('{"nyu": 1}', "no result file"),
        ('{"results": [{"case": "x"}]}', "damaged"),
        ('{"results": [3]}', "damaged"),
    ],
)
def test_broken_files(tmp_path: Path, content: str, message: str) -> None:
    for pair in ((document(), content), (content, document())):
        result = compare(tmp_path, *pair)
        assert result.returncode == 2
        assert message in result.stderr
        assert "Traceback" not in result.stderr


def test_folders(tmp_path: Path) -> None:
    """Other JSON beside the results is left out; a result file that is broken is not."""
    compare(tmp_path, document(), document(3.0))
    (tmp_path / "new" / "other.json").write_text('{"nyu": 1}')
    result = run(str(tmp_path / "old"), str(tmp_path / "new"))
    assert result.returncode == 1
    assert "1 compared, 1 slower" in result.stdout
    (tmp_path / "new" / "other.json").write_text("{")
    assert run(str(tmp_path / "old"), str(tmp_path / "new")).returncode == 2
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "nowhere.json"):
        result = run(str(path), str(tmp_path / "new"))
        assert result.returncode == 2
        assert str(path) in result.stderr


def test_help_and_limits_of_the_option() -> None:
    assert "--max-slowdown" in run("--help").stdout
    assert run("a", "b", "--max-slowdown", "0.5").returncode == 2
