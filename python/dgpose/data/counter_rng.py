"""Random numbers addressed by (seed, index, stream): no state, no order, no batch dependence.

A sample of a rendered data set must be the same whether it is drawn alone, inside a batch, by
another worker or on a resumed run. So every number is a hash of what it is for: the data set's
seed, the sample's index, the name of the quantity and the position inside it. The mixing function
is the finaliser of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number
generators", OOPSLA 2014), applied once for the address of the stream and twice for each number.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
UIntArray = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_MASK = (1 << 64) - 1


def _mix(x: UIntArray) -> UIntArray:
    """SplitMix64's finaliser; arithmetic modulo 2**64 is intended."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    mixed: UIntArray = x ^ (x >> np.uint64(31))
    return mixed


class CounterRng:
    """Draws for a set of sample indices; row b of every result depends on ``indices[b]`` alone.

    Args:
        seed: any Python integer (taken modulo 2**64).
        indices: [B] non-negative sample indices.

    Every method takes the name of the quantity, so adding a new one never changes the others, and
    the trailing shape of one sample's draw; it returns ``[B, *shape]``.

    Raises:
        ValueError: indices that are negative or not one-dimensional.
        TypeError: indices that are not integers.
    """

    def __init__(self, seed: int, indices: Sequence[int] | npt.NDArray[np.integer]) -> None:
        index = np.asarray(indices)
        if index.ndim != 1:
            raise ValueError(f"indices must have shape [B], got {list(index.shape)}")
        if index.size and not np.issubdtype(index.dtype, np.integer):
            raise TypeError(f"indices must be integers, got {index.dtype}")
        if index.size and int(index.min()) < 0:
            raise ValueError(f"indices must be non-negative, got {int(index.min())}")
        self._seed = seed & _MASK
        self._index = index.astype(np.uint64)

    def __len__(self) -> int:
        return int(self._index.size)

    def bits(self, stream: str, *shape: int) -> UIntArray:
        """Uniform 64-bit integers ``[B, *shape]``."""
        count = int(np.prod(shape, dtype=np.int64))
        name = np.full(1, zlib.crc32(stream.encode()), np.uint64)
        key = _mix(_mix(np.full(1, self._seed, np.uint64) + _GOLDEN) ^ (name * _GOLDEN))
        start = _mix(key + self._index * _GOLDEN)
        counter = np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
        return _mix(_mix(start[:, None] + counter)).reshape(len(self), *shape)

    def uniform(self, stream: str, *shape: int, low: float = 0.0, high: float = 1.0) -> FloatArray:
        """Uniform numbers in [low, high), 53 random bits each."""
        unit = (self.bits(stream, *shape) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        scaled: FloatArray = low + (high - low) * unit
        return scaled

    def normal(self, stream: str, *shape: int, std: float = 1.0, clip: float = 4.0) -> FloatArray:
        """Normal numbers (Box-Muller), limited to ``clip`` standard deviations before scaling."""
        pair = self.uniform(stream, *shape, 2)
        radius = np.sqrt(-2.0 * np.log1p(-pair[..., 0]))
        value = radius * np.cos(2.0 * np.pi * pair[..., 1])
        scaled: FloatArray = std * np.clip(value, -clip, clip)
        return scaled

    def integers(self, stream: str, high: int, *shape: int) -> IntArray:
        """Integers in [0, high)."""
        if high <= 0:
            raise ValueError(f"high must be positive, got {high}")
        value: IntArray = (self.bits(stream, *shape) % np.uint64(high)).astype(np.int64)
        return value

    def chance(self, stream: str, probability: float, *shape: int) -> npt.NDArray[np.bool_]:
        """True with the given probability."""
        return self.uniform(stream, *shape) < probability

    def log_normal(self, stream: str, *shape: int, std: float) -> FloatArray:
        """Factors around 1: exp of a normal number of the given standard deviation."""
        return np.exp(self.normal(stream, *shape, std=std))
