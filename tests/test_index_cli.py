"""`dgpose index`: what it says and writes, and one line for every error."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from dgpose.cli.app import app
from dgpose.inference import index_bench
from dgpose_ext import PoseIndex, _loader

if _loader.core is None:
    pytest.skip(_loader.why_no_core(), allow_module_level=True)

N, D, J = 400, 8, 3
RANDOM = np.random.default_rng(0)
ROWS = RANDOM.standard_normal((N, D)).astype(np.float32)
POSES = (200 * RANDOM.standard_normal((N, J, 3))).astype(np.float32)
QUERIES = RANDOM.standard_normal((300, D))  # more than one batch


def run(*arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["index", *map(str, arguments)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def error_line(*arguments: object) -> str:
    lines: list[str] = [line for line in run(*arguments, code=2).stderr.splitlines() if line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Embeddings with poses, queries, and an index of them; the current folder."""
    monkeypatch.chdir(tmp_path)
    np.savez("rows.npz", embeddings=ROWS, poses=POSES, ids=np.arange(N) * 2)
    np.save("rows.npy", ROWS)
    np.save("poses.npy", POSES)
    np.save("queries.npy", QUERIES)
    PoseIndex(ROWS, poses=POSES, ids=np.arange(N) * 2, storage="int8").save("poses.dgx")
    return tmp_path


@pytest.mark.parametrize("storage", ["auto", "int8", "bfloat16", "float32"])
def test_build(storage: str, folder: Path) -> None:
    output = run("build", "rows.npz", "--out", "new/a.dgx", "--storage", storage).stdout
    built = PoseIndex.load(folder / "new" / "a.dgx", verify=True)
    assert built.storage == ("float32" if storage == "auto" else storage)
    assert output.startswith(f"400 rows, D=8, J=3, {built.storage}, built in ")
    assert f"saved new/a.dgx: {(folder / 'new' / 'a.dgx').stat().st_size:,} bytes" in output
    for name, array in PoseIndex.load(folder / "poses.dgx").arrays().items():
        assert np.array_equal(built.arrays()[name], array)


def test_build_of_other_files(folder: Path) -> None:
    assert "no poses" in run("build", "rows.npy", "--out", "a.dgx").stdout
    assert "J=3" in run("build", "rows.npy", "--poses", "poses.npy", "--out", "a.dgx").stdout
    pytest.importorskip("pyarrow")
    PoseIndex.load(folder / "poses.dgx").to_parquet(folder / "rows.parquet")
    run("build", "rows.parquet", "--out", "b.dgx")
    assert PoseIndex.load(folder / "b.dgx").ids()[-1] == 2 * N - 2


def test_search(folder: Path) -> None:
    index = PoseIndex.load(folder / "poses.dgx")
    result = run("search", "poses.dgx", "queries.npy", "-k", 50, "--out", "found.npz")
    assert re.search(r"300 queries in .* ms; .* of 400 rows a query scored exactly", result.stdout)
    scores, ids = index.search(QUERIES, 50)
    with np.load("found.npz") as found:
        assert np.array_equal(found["scores"], scores)
        assert np.array_equal(found["ids"], ids)
    run("search", "poses.dgx", "queries.npy", "-k", 50, "--mean-pose", "--out", "means.npz")
    with np.load("means.npz") as found:
        assert np.array_equal(found["mean_poses"], index.search_mean_pose(QUERIES, 50))
    shown = run("search", "poses.dgx", "queries.npy", "-k", 2).stdout
    assert f"query 0: {ids[0, 0]} ({scores[0, 0]:.6g}), {ids[0, 1]} ({scores[0, 1]:.6g})\n" in shown
    assert "295 more" in shown
    shown = run("search", "poses.dgx", "queries.npy", "--mean-pose").stdout
    assert re.search(r"query 4: joint 0 at \(.*\) mm, 3 joints", shown)


def test_info(folder: Path) -> None:
    size = (folder / "poses.dgx").stat().st_size
    for option, checksum in ((), "not read"), (("--verify",), "ok"):
        shown = run("info", "poses.dgx", *option).stdout
        facts = dict(re.split(r"  +", line, maxsplit=1) for line in shown.splitlines())
        assert (facts["rows"], facts["D"], facts["J"]) == ("400", "8", "3")
        assert facts["storage"] == "int8"
        assert facts["bytes"] == f"{size:,}, {size / 400:,.1f} a row"
        assert facts["version"] == "1"
        assert checksum in facts["checksum"]
    good = (folder / "poses.dgx").read_bytes()
    (folder / "poses.dgx").write_bytes(good[:-9] + bytes([good[-9] ^ 4]) + good[-8:])
    assert re.search(
        r"poses.dgx: checksum of \w+ differs", error_line("info", "poses.dgx", "--verify")
    )
    (folder / "poses.dgx").write_bytes(good[:-9])
    assert "poses.dgx: cut short" in error_line("info", "poses.dgx")
    assert error_line("info", "rows.npy") == "rows.npy: not a PoseIndex file"


def bad_rows(row: int) -> Any:
    rows = QUERIES.copy()
    rows[row, 3] = np.nan
    return rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("build none.npy", "none.npy: no such file"),
        ("build queries.txt", "queries.txt: must be an .npy, .npz or .parquet file"),
        ("build bad.npy", "bad.npy: embeddings must be finite, got NaN or Inf in row 277"),
        ("build twice.npz", "twice.npz: ids must be unique, got 0 twice"),
        (
            "build queries.npy --poses poses.npy",
            "poses.npy: poses must have shape [N, J, 3] with N = 300, got [400, 3, 3]",
        ),
        ("search none.dgx queries.npy", "none.dgx: no such file"),
        (
            "search poses.dgx wide.npy",
            "wide.npy: queries must have shape [B, D] with D = 8, got [2, 9]",
        ),
        ("search poses.dgx bad.npy", "bad.npy: queries must be finite, got NaN or Inf in row 277"),
        ("search poses.dgx queries.npy -k 0", "k must be at least 1, got 0"),
        ("search poses.dgx queries.npy --out a.txt", "out must be an .npz file, got a.txt"),
        (
            "search bare.dgx queries.npy --mean-pose",
            "search_mean_pose needs an index with poses: PoseIndex(..., poses=[N, J, 3])",
        ),
        ("bench", "either an index file or --synthetic N,D must be given"),
        ("bench --synthetic 9", "synthetic must be N,D, got '9'"),
        ("bench poses.dgx -B 1,x", "batch must be numbers with commas, each at least 1, got '1,x'"),
    ],
)
def test_errors_are_one_line(arguments: str, message: str, folder: Path) -> None:
    np.save("bad.npy", bad_rows(277))
    np.save("wide.npy", np.ones((2, 9)))
    np.savez("twice.npz", embeddings=ROWS, ids=np.zeros(N, np.int64))
    PoseIndex(ROWS).save("bare.dgx")
    command = arguments.split()
    if command[0] == "build":
        Path("queries.txt").write_text("1 2 3")
        command += ["--out", "poses.dgx"]
    before = Path("poses.dgx").read_bytes()
    assert error_line(*command) == message
    assert Path("poses.dgx").read_bytes() == before


def test_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "poses.dgx").read_bytes()

    def no_room(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_room)
        line = error_line("build", "rows.npz", "--out", "poses.dgx")
        assert line == "poses.dgx: No space left on device"
        line = error_line("search", "poses.dgx", "queries.npy", "--out", "found.npz")
        assert line == "found.npz: No space left on device"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    line = error_line("build", "rows.npz", "--out", "poses.dgx")  # before anything is read
    assert line == ("poses.dgx: No space left on device (30,400 bytes are needed, 1,000 are free)")
    assert (folder / "poses.dgx").read_bytes() == before
    assert not (folder / "found.npz").exists()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_read_only_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    access: Callable[..., bool] = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
    line = error_line("build", "rows.npz", "--out", "new/poses.dgx")
    assert line == "new/poses.dgx: Permission denied"
    assert error_line("build", "rows.npz", "--out", ".") == ".: Is a directory"


def test_missing_packages(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (folder / "rows.parquet").write_bytes(b"")
    assert error_line("build", "rows.parquet", "--out", "a.dgx") == (
        "a Parquet file needs pyarrow, which is not installed: pip install 'dgpose-ext[parquet]'"
    )


def test_bench(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ("PoseIndex", "torch float32", "nobody")  # of the peers, each a process, one will do
    monkeypatch.setattr(index_bench, "_CONTENDERS", dict.fromkeys(wanted))
    result = run("bench", "poses.dgx", "-k", 5, "-B", "1,3", "--threads", 1, "--out", "bench.json")
    report = json.loads((folder / "bench.json").read_text())
    assert report["data"] == "poses.dgx: N=400, D=8, int8"
    assert (report["k"], report["threads"], report["ours"]) == (5, 1, "PoseIndex")
    assert set(report["contenders"]) == {"PoseIndex", "torch float32"}
    for rows in report["contenders"].values():
        assert [(row["batch"], row["same"]) for row in rows] == [(1, 1), (3, 1)]
        for row in rows:
            assert 0 < row["p10_s"] <= row["median_s"] <= row["p90_s"]
    assert report["absent"] == {"nobody": "KeyError: 'nobody'"}
    assert "not timed: nobody: KeyError: 'nobody'" in result.stdout
    assert "B=3" in result.stdout


def test_every_contender_finds_the_same(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    PoseIndex(ROWS).save(tmp_path / "index.dgx")
    queries = np.ascontiguousarray(QUERIES[:20], np.float32)
    want = PoseIndex(ROWS).search(queries, 5)[1].numpy()
    for name, contender in index_bench._CONTENDERS.items():
        if name.startswith("faiss"):
            pytest.importorskip("faiss")
        for search in contender(tmp_path).values():
            assert np.mean(search(queries, 5) == want) > (0.7 if "not exact" in name else 0.99)
