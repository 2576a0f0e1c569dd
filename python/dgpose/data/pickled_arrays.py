"""Dictionaries of NumPy arrays in pickles, read without running the pickle.

Human3.6M is passed around as `data_3d_h36m.npz` (an object array, so a pickle inside) and
`cameras.pkl`. Loading a pickle can run any program, so it is not loaded: its instructions are
parsed (`pickletools.genops` executes nothing) and the few that build dictionaries, lists, tuples,
numbers, text and numeric arrays are followed here. Anything else is refused by name.
"""

from __future__ import annotations

import io
import pickletools
import re
import reprlib
import zipfile
import zlib
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["PickleFormatError", "read_array_npz", "read_array_pickle"]

_RECONSTRUCT, _NDARRAY, _DTYPE, _ENCODE = "reconstruct", "ndarray", "dtype", "encode"
_GLOBALS = {
    "numpy.core.multiarray _reconstruct": _RECONSTRUCT,
    "numpy._core.multiarray _reconstruct": _RECONSTRUCT,
    "numpy ndarray": _NDARRAY,
    "numpy dtype": _DTYPE,
    "_codecs encode": _ENCODE,
}
_NUMERIC = re.compile(r"[biufc]\d+|[SU]\d+|O\d*")
_MARK = object()
# What following instructions that make no sense can end in.
_DAMAGE = (
    *(ValueError, TypeError, AttributeError, LookupError, OverflowError),
    *(RecursionError, MemoryError),
)


class PickleFormatError(ValueError):
    """A file is no pickle of arrays, or asks for more than arrays. The message says what."""


def read_array_pickle(path: str | PathLike[str]) -> Any:
    """What a pickle of dictionaries and numeric arrays holds, such as MMPose's `cameras.pkl`.

    Raises:
        PickleFormatError: it holds anything else, or is damaged.
        OSError: the file cannot be read.
    """
    path = Path(path)
    return _parsed(path.read_bytes(), str(path))


def read_array_npz(path: str | PathLike[str], key: str) -> Any:
    """One entry of an NPZ: a numeric array, or what an object array of one element holds.

    Raises:
        PickleFormatError: no NPZ, no such entry, a damaged one, or one that is more than arrays.
        OSError: the file cannot be read.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as file:
            data = file.read(f"{key}.npy")
    except KeyError:
        raise PickleFormatError(f"{path}: must hold {key!r}, which is not there") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise PickleFormatError(f"{path}: not a whole NPZ file ({error})") from None
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        dtype = read(stream)[2]
        if not dtype.hasobject:
            stream.seek(0)
            return np.lib.format.read_array(stream, allow_pickle=False)
    except (ValueError, MemoryError, OverflowError) as error:  # a shape that no memory holds
        raise PickleFormatError(f"{path}: {key} is damaged ({error})") from None
    value = _parsed(stream.read(), f"{path}, {key}")
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value


def _parsed(data: bytes, name: str) -> Any:
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return _finished(machine.stack[-1], {})
            machine.step(opcode.name, argument)
    except PickleFormatError as error:
        raise PickleFormatError(f"{name}: {error}") from None
    except _DAMAGE as error:
        raise PickleFormatError(f"{name}: the pickle is damaged ({error})") from None
    raise PickleFormatError(f"{name}: the pickle is cut short")


class _Dtype:
    """A dtype while it is read."""

    def __init__(self, code: object) -> None:
        if not (isinstance(code, str) and _NUMERIC.fullmatch(code)):
            raise PickleFormatError(
                f"arrays must be numeric or text, got dtype {reprlib.repr(code)}"
            )
        self.value = np.dtype("O" if code.startswith("O") else code)

    def build(self, state: Any) -> None:
        _, order, *parts = state[:5]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in parts):
            raise PickleFormatError("arrays must be numeric or text, got a compound dtype")
        self.value = self.value.newbyteorder(order)


class _Array:
    """An array while it is read: objects may still be filled in."""

    def __init__(self) -> None:
        self.values: npt.NDArray[Any] = np.empty(0)
        self.objects: list[Any] | None = None

    def build(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        order: Any = "F" if fortran else "C"
        if dtype.value.hasobject:
            if not isinstance(data, list) or len(data) != int(np.prod(shape, dtype=object)):
                raise PickleFormatError("an object array must hold one element a place")
            self.objects = data
            self.values = np.empty(shape, object, order=order)
        else:
            content = data.encode("latin1") if isinstance(data, str) else data
            self.values = (
                np.frombuffer(content, dtype.value).reshape(shape, order=order).copy(order)
            )


class _Machine:
    """The instructions of a pickle that build containers and arrays."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self.stack.append(argument)
        elif name in _FIXED:
            self.stack.append(_FIXED[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            place = len(self._memo) if name == "MEMOIZE" else int(argument)
            self._memo[place] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self._memo[int(argument)])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            self.stack[-count:] = [tuple(self.stack[-count:])]
        elif name == "TUPLE":
            self.stack.append(tuple(self._since_mark()))
        elif name in ("LIST", "APPENDS", "APPEND"):
            items = [self.stack.pop()] if name == "APPEND" else self._since_mark()
            if name == "LIST":
                self.stack.append(items)
            else:
                _of(list, self.stack[-1]).extend(items)
        elif name in ("DICT", "SETITEMS", "SETITEM"):
            items = self._since_mark() if name != "SETITEM" else _popped(self.stack, 2)
            pairs = dict(zip(map(_key, items[::2]), items[1::2], strict=True))
            if name == "DICT":
                self.stack.append(pairs)
            else:
                _of(dict, self.stack[-1]).update(pairs)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            wanted = argument if name == "GLOBAL" else " ".join(_popped(self.stack, 2))
            if wanted not in _GLOBALS:
                raise PickleFormatError(f"must hold arrays alone, asks for {wanted!r}")
            self.stack.append(_Global(_GLOBALS[wanted]))
        elif name == "REDUCE":
            called, arguments = _popped(self.stack, 2)
            self.stack.append(_called(_of(_Global, called), arguments))
        elif name == "BUILD":
            state = self.stack.pop()
            built = self.stack[-1]
            (built if isinstance(built, _Dtype) else _of(_Array, built)).build(state)
        elif name not in ("PROTO", "FRAME"):
            raise PickleFormatError(f"must hold arrays alone, uses the instruction {name}")

    def _since_mark(self) -> list[Any]:
        start = max(i for i, item in enumerate(self.stack) if item is _MARK)
        items = self.stack[start + 1 :]
        del self.stack[start:]
        return items


class _Global(str):
    """A name that the pickle may call, as `_GLOBALS` has it."""


_CONSTANTS = (
    "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "FLOAT", "BINFLOAT", "BINUNICODE",
    "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BINSTRING", "SHORT_BINSTRING", "STRING",
)  # fmt: skip
_FIXED: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "MARK": lambda: _MARK,
}


def _called(what: _Global, arguments: Any) -> Any:
    if what == _RECONSTRUCT and arguments[0] == _NDARRAY:
        return _Array()
    if what == _DTYPE:
        return _Dtype(arguments[0])
    if what == _ENCODE and arguments[1] in ("latin1", "latin-1"):
        return arguments[0].encode("latin1")
    raise PickleFormatError(f"must hold arrays alone, calls {what} with {reprlib.repr(arguments)}")


def _popped(stack: list[Any], count: int) -> list[Any]:
    items = stack[-count:]
    del stack[-count:]
    return items


def _of(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise PickleFormatError(f"must hold arrays alone, changes a {type(value).__name__}")
    return value


def _key(value: Any) -> Any:
    """Names and numbers, or a tuple of them: of deeper ones a hash can take for ever."""
    if not all(isinstance(v, (str, int)) for v in (value if isinstance(value, tuple) else [value])):
        raise PickleFormatError("must have names or numbers as keys of dictionaries")
    return value


def _finished(value: Any, done: dict[int, Any]) -> Any:
    """The containers with real arrays in them; what is shared stays shared."""
    if id(value) in done:
        return done[id(value)]
    result = value
    if isinstance(value, _Array):
        result = value.values
        done[id(value)] = result
        if value.objects is not None:
            flat = np.empty(len(value.objects), object)
            flat[:] = [_finished(item, done) for item in value.objects]
            order: Any = "C" if result.flags.c_contiguous else "F"
            result[...] = flat.reshape(result.shape, order=order)
    elif isinstance(value, dict):
        result = done[id(value)] = {}
        result.update({key: _finished(item, done) for key, item in value.items()})
    elif isinstance(value, list):
        result = done[id(value)] = []
        result.extend(_finished(item, done) for item in value)
    elif isinstance(value, tuple):
        result = done[id(value)] = tuple(_finished(item, done) for item in value)
    elif isinstance(value, (_Global, _Dtype)) or value is _MARK:
        raise PickleFormatError("must hold arrays alone")
    return result
