"""The exact search of the scoring ops in Triton: a screen by tl.dot, then exact values.

Every query has a list of rows that may be among its k best, each with two bounds of its value, and
a threshold that k rows are known to reach. Tiles of rows are visited in rounds, few at first and
then ever more, in an order that spreads any number of first tiles over all rows. A round is

  code     rows to bfloat16, with the norms of the codes and of their errors (bfloat16 rows that fit
           are read in place, and get norms alone),
  screen   a product in float32 of the codes bounds every pair; rows whose upper bound reaches the
           threshold of the query are appended to its list, through an atomic counter,
  margin   with a margin: adds the joint distances to the bounds of what was appended,
  recover  a query whose list had no room gets the round's rows anew, exactly: slow, always right,
  select   the k-th largest lower bound raises the threshold, and what is below it goes.

What is left in the end gets its exact value and is sorted. Results do not depend on the order of
the lists, and so neither on that of the atomics. Nothing waits for the device. Maths:
csrc/scoring/search.h; bounds: csrc/scoring/screen.h without a mean. What differs:

- `rounding` of a product is (D + 16) 2^-22. Tensor cores add a block of n products (n >= 4) and the
  sum so far aligned to the largest, cutting each, and cut the result: n + 2 errors below 2^-23 of
  the largest, which sum |q^_i x^_i| <= ||q^|| ||x^|| bounds; 1.5 D 2^-23 in all. The rest, with
  16 2^-22, covers the roundings of the bounds themselves and of the defined sum.
- A value is dropped if it is below L - 2^-21 |L| - 2^-100, k rows having sums of L or more:
  float32 tells such values apart, also where denormals are flushed on the way.
- The root mean square of the margin's gate is of direct differences: its terms have one sign, so
  that a relative error of (3 J + 8) 2^-23 covers the sum.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from dgpose_ext.triton._launch import INTERPRETED, ceil_divide, is_finite, launch, power_of_2
from dgpose_ext.triton.scoring._exact import dense_rows, inner_products, mean_joint_distances

#: Rows, queries (at most) and columns of a product.
ROWS = 128
QUERIES = 128
DEPTH = 64
#: Entries of a list, at least; of all lists at once, about.
LIST = 8192
LISTS = 1 << 24
#: Entries that are looked at together, by select and to compute exact values.
TILE = 2048
PAIRS = 128
#: Elements of the codes that are held at a time, about.
CODES = 1 << 28

#: After a round so many times the rows have been seen.
_GROWTH = 4
#: Rows of a list or a round: counters are int32.
_MOST_ROWS = 1 << 30
#: The interpreter multiplies the bits of bfloat16.
_OPERAND = tl.float32 if INTERPRETED else tl.bfloat16
_INFINITY = tl.constexpr(float("inf"))
_TINY = tl.constexpr(2.0**-100)
#: Ranks as integers: below every value is NaN, and below that nothing.
_NAN = tl.constexpr(-(2**31) + 1)
_NOTHING = tl.constexpr(-(2**31))
#: A row after all others.
_EVERY = tl.constexpr(2**62)


@triton.jit
def _first_row(position, tiles, step, ROWS: tl.constexpr):
    """The first row of the tile at a position of the order."""
    return tl.cast(position, tl.int64) * step % tiles * ROWS


@triton.jit
def _at_least(x):
    """float32 that is not below x >= 0, nor a denormal."""
    more = (x * (1 + 1e-6)).to(tl.float32)
    return tl.where(x > 0, tl.maximum(more, 2.0**-126), more)


@triton.jit
def code_kernel(
    rows, stride, codes, norms, errors, count, dim, padded, first_position, tiles, step,
    ROWS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """codes [tiles, ROWS, padded] bfloat16, or none; ||x^|| and ||x - x^|| of each row."""
    tile = tl.program_id(0).to(tl.int64)
    row = _first_row(first_position + tile, tiles, step, ROWS) + tl.arange(0, ROWS)
    slot = tile * ROWS + tl.arange(0, ROWS)
    norm = tl.zeros((ROWS,), tl.float64)
    error = tl.zeros((ROWS,), tl.float64)
    for start in range(0, padded, DEPTH):
        column = start + tl.arange(0, DEPTH)
        inside = (row < count)[:, None] & (column < dim)[None, :]
        x = tl.load(rows + (row * stride)[:, None] + column[None, :], inside, 0).to(tl.float32)
        code = x.to(tl.bfloat16)
        value = code.to(tl.float32)
        # Denormals are 0, or count as errors where they stay: an instruction may flush them.
        normal = ~(tl.abs(value) < 2.0**-126)
        value = tl.where(normal, value, 0)
        difference = x.to(tl.float64) - value.to(tl.float64)
        norm += tl.sum(value.to(tl.float64) * value.to(tl.float64), 1)
        error += tl.sum(difference * difference, 1)
        if codes is not None:
            code = tl.where(normal, code, 0)
            tl.store(codes + (slot * padded)[:, None] + column[None, :], code)
    tl.store(norms + slot, _at_least(tl.sqrt(norm)))
    tl.store(errors + slot, _at_least(tl.sqrt(error)))


@triton.jit
def screen_kernel(
    queries, query_norms, query_errors, rows, stride, row_norms, row_errors,
    poses, targets, joints, weight, scores, errors, list_rows, counts, thresholds, capacity,
    batch, count, depth, rounding, first_position, tiles, step, query_tiles,
    FIRST: tl.constexpr, CODED: tl.constexpr, MARGIN: tl.constexpr, OPERAND: tl.constexpr,
    ROWS: tl.constexpr, QUERIES: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """Bounds the values of a tile of pairs, and appends what may be among the k best."""
    tile = (tl.program_id(0) // query_tiles).to(tl.int64)
    row = _first_row(first_position + tile, tiles, step, ROWS) + tl.arange(0, ROWS)
    slot = tile * ROWS + tl.arange(0, ROWS)
    first_query = tl.program_id(0) % query_tiles * QUERIES
    at = slot if CODED else tl.minimum(row, count - 1)
    column = tl.arange(0, DEPTH)
    a = rows + (at * stride)[:, None] + column[None, :]
    b = (
        queries
        + column[:, None]
        + ((first_query + tl.arange(0, QUERIES)).to(tl.int64) * depth)[None, :]
    )
    score = tl.zeros((ROWS, QUERIES), tl.float32)
    for _ in range(0, depth, DEPTH):
        score = tl.dot(tl.load(a).to(OPERAND), tl.load(b).to(OPERAND), score)
        a += DEPTH
        b += DEPTH
    # By parts, which together would not fit the registers.
    PARTS: tl.constexpr = 4 if QUERIES >= 64 else 1
    COLUMNS: tl.constexpr = QUERIES // PARTS
    if PARTS == 4:
        left, right = _halves(score)
        parts = _halves(left) + _halves(right)
    else:
        parts = (score,)
    for part in tl.static_range(PARTS):
        _append(
            parts[part], first_query + part * COLUMNS + tl.arange(0, COLUMNS), row, slot,
            query_norms, query_errors, row_norms, row_errors, poses, targets, joints, weight,
            scores, errors, list_rows, counts, thresholds, capacity, batch, count, depth, rounding,
            first_position, FIRST, MARGIN, ROWS,
        )  # fmt: skip


@triton.jit
def _halves(tile):
    """The first and the second half of the columns."""
    halves = tl.reshape(tile, (tile.shape[0], 2, tile.shape[1] // 2))
    return tl.split(tl.permute(halves, (0, 2, 1)))


@triton.jit
def _append(
    score, query, row, slot, query_norms, query_errors, row_norms, row_errors,
    poses, targets, joints, weight, scores, errors, list_rows, counts, thresholds, capacity,
    batch, count, depth, rounding, first_position,
    FIRST: tl.constexpr, MARGIN: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Appends the rows of a tile of scores that may be among the k best."""
    query_norm, query_error = tl.load(query_norms + query), tl.load(query_errors + query)
    row_norm, row_error = tl.load(row_norms + slot), tl.load(row_errors + slot)
    error = (query_norm + query_error)[None, :] * row_error[:, None]
    error += (query_error + rounding * query_norm)[None, :] * row_norm[:, None]
    error = error * (1 + 2.0**-18) + depth * _TINY
    there = (row < count)[:, None] & (query < batch)[None, :]
    error = tl.where(is_finite(score) & is_finite(error) & there, error, _INFINITY)
    entry = (query.to(tl.int64) * capacity)[None, :]
    if FIRST:
        entry += first_position * ROWS + slot[:, None]
        wanted = (query < batch)[None, :]
        row = tl.where(row < count, row, -1)
    else:
        bound = score + error
        if MARGIN:
            bound += weight * _root_mean_square(poses, targets, row, query, joints, count, batch)
        threshold = tl.load(thresholds + query, query < batch, _INFINITY)
        # Written so that a bound that is no number keeps its row.
        wanted = there & ~(bound < threshold[None, :])
        counter = counts + query[None, :] + tl.zeros((ROWS, 1), tl.int32)
        place = tl.atomic_add(counter, 1, wanted, sem="relaxed")
        wanted = wanted & (place < capacity)
        entry += place
    tl.store(scores + entry, score, wanted)
    tl.store(errors + entry, error, wanted)
    tl.store(list_rows + entry, row[:, None], wanted)


@triton.jit
def _root_mean_square(poses, targets, row, query, joints, count, batch):
    """An upper bound of the mean joint distances of a tile of pairs, [rows, queries] float32."""
    pose = poses + tl.minimum(row, count - 1) * (3 * joints)
    target = targets + tl.minimum(query, batch - 1).to(tl.int64) * (3 * joints)
    squares = tl.zeros((row.shape[0], query.shape[0]), tl.float32)
    for i in range(3 * joints):
        d = tl.load(pose + i)[:, None] - tl.load(target + i)[None, :]
        squares += d * d
    size = tl.full((), joints, tl.float32)
    squares = squares * (1 + (3 * size + 8) * 2.0**-23) + size * _TINY
    return tl.sqrt(squares / size) * (1 + 2.0**-20)


@triton.jit
def _values(queries, rows, stride, row, dim, poses, targets, joints, weight, MARGIN: tl.constexpr,
            PAIRS: tl.constexpr):  # fmt: skip
    """The float32 values of rows for one query; `queries` and `targets` point to its own."""
    one = tl.arange(0, 1)
    value = inner_products(queries + one, rows + row * stride, dim, PAIRS)
    if MARGIN:
        pose = poses + row * (3 * joints)
        value += weight * mean_joint_distances(pose, targets + one, joints, PAIRS)
    value = value.to(tl.float32)
    return tl.where(value == 0, 0, value)  # -0 as well


@triton.jit
def margin_kernel(
    scores, errors, list_rows, counts, kept, capacity, poses, targets, joints,
    weight: tl.float64, list_tiles, PAIRS: tl.constexpr,
):  # fmt: skip
    """Adds the weighted mean joint distances to the scores of the round's entries."""
    q = (tl.program_id(0) // list_tiles).to(tl.int64)
    begin = tl.program_id(0) % list_tiles * PAIRS
    first, last = tl.load(kept + q), tl.load(counts + q)
    if (begin < last) & (begin + PAIRS > first) & (last <= capacity):
        place = begin + tl.arange(0, PAIRS)
        at = q * capacity + place
        new = (place >= first) & (place < last)
        row = tl.load(list_rows + at, new, -1)
        pose = poses + tl.maximum(row, 0) * (3 * joints)
        target = targets + q * (3 * joints) + tl.arange(0, 1)
        distance = mean_joint_distances(pose, target, joints, PAIRS)
        value = tl.load(scores + at, new, 0).to(tl.float64) + weight * distance
        error = tl.load(errors + at, new, 0).to(tl.float64)
        error = ((error + tl.abs(value) * 2.0**-22 + _TINY) * (1 + 2.0**-20)).to(tl.float32)
        value = value.to(tl.float32)
        error = tl.where(is_finite(value) & is_finite(error), error, _INFINITY)
        tl.store(scores + at, value, new)
        tl.store(errors + at, error, new)


@triton.jit
def _rank(value):
    """An integer that is the larger, the better the rank of a float32."""
    bits = value.to(tl.int32, bitcast=True)
    return tl.where(value == value, bits ^ ((bits >> 31) & 0x7FFFFFFF), _NAN)


@triton.jit
def _kth_key(scores, errors, rows, size, k, rank, digits, BY_ROW: tl.constexpr,
             TILE: tl.constexpr):  # fmt: skip
    """The k-th best rank of a list that has so many entries, or with BY_ROW the k-th of the rows of
    one rank; how many are better; how many are better or equal. Without errors scores are exact.

    A radix select: keys, which count up from 0, are found from the highest of 8-bit digits down.
    """
    last = (tl.full((), 1, tl.int64) << 8 * digits) - 1
    found = tl.full((), 0, tl.int64)
    larger = tl.full((), 0, tl.int32)
    as_large = tl.full((), 0, tl.int32)
    for d in range(digits):
        shift = (digits - 1 - d) * 8
        bins = tl.zeros((256,), tl.int32)
        for start in range(0, size, TILE):
            place = start + tl.arange(0, TILE)
            inside = place < size
            score = tl.load(scores + place, inside, 0)
            if errors is not None:
                score -= tl.load(errors + place, inside, 0)
            key = _rank(score).to(tl.int64)
            if BY_ROW:
                inside = inside & (key == rank)
                key = last - tl.load(rows + place, inside, 0)
            else:
                key -= _NOTHING
            digit = key >> shift
            bins += tl.histogram((digit & 255).to(tl.int32), 256, inside & (digit >> 8 == found))
        above = larger + tl.cumsum(bins, 0, reverse=True)
        digit = tl.sum((above >= k).to(tl.int32), 0) - 1
        at = tl.arange(0, 256)
        as_large = tl.sum(tl.where(at == digit, above, 0), 0)
        larger = as_large - tl.sum(tl.where(at == digit, bins, 0), 0)
        found = found * 256 + digit
    return last - found if BY_ROW else found + _NOTHING, larger, as_large


@triton.jit
def _compact(scores, errors, rows, size, threshold, rank, last_row, EXACT: tl.constexpr,
             TILE: tl.constexpr):  # fmt: skip
    """Drops entries of a list, in place; returns how many are left.

    EXACT: those that rank behind (rank, last_row); else those below the threshold.
    """
    left = tl.full((), 0, tl.int32)
    for start in range(0, size, TILE):
        place = start + tl.arange(0, TILE)
        inside = place < size
        score, error = tl.load(scores + place, inside, 0), tl.load(errors + place, inside, 0)
        row = tl.load(rows + place, inside, -1)
        if EXACT:
            own = _rank(score)
            stays = (own > rank) | ((own == rank) & (row <= last_row))
        else:
            stays = (row >= 0) & ~(score + error < threshold)
        stays = stays & inside
        number = stays.to(tl.int32)
        to = left + tl.cumsum(number, 0) - 1
        tl.debug_barrier()  # all is read before anything is moved
        tl.store(scores + to, score, stays)
        tl.store(errors + to, error, stays)
        tl.store(rows + to, row, stays)
        left += tl.sum(number, 0)
    tl.debug_barrier()
    return left


@triton.jit
def _keep_best(scores, errors, rows, size, k, row_digits, TILE: tl.constexpr):
    """Keeps the k best of a list of exact scores; returns how many there are, and the k-th rank
    and row: what ranks behind them is not among the k best."""
    tl.debug_barrier()
    rank = tl.full((), _NOTHING, tl.int64)
    last_row = tl.full((), _EVERY, tl.int64)
    if size >= k:
        rank, larger, as_large = _kth_key(scores, None, rows, size, k, 0, 4, False, TILE)
        last_row = tl.full((), _EVERY, tl.int64)
        if as_large > k:
            left = k - larger
            last_row, _, _ = _kth_key(scores, None, rows, size, left, rank, row_digits, True, TILE)
        size = _compact(scores, errors, rows, size, 0.0, rank, last_row, True, TILE)
    return size, rank, last_row


@triton.jit
def recover_kernel(
    queries, rows, stride, dim, poses, targets, joints, weight: tl.float64,
    scores, errors, list_rows, counts, kept, capacity, count, k, row_digits,
    first_position, last_position, tiles, step,
    MARGIN: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """A query whose list overflowed: exact values of what was kept and of the round's rows."""
    q = tl.program_id(0).to(tl.int64)
    if tl.load(counts + q) > capacity:
        own_scores, own_errors = scores + q * capacity, errors + q * capacity
        own_rows = list_rows + q * capacity
        target = targets + q * (3 * joints) if MARGIN else targets
        old = tl.load(kept + q)
        old_tiles = (old + ROWS - 1) // ROWS
        turns = old_tiles + last_position - first_position
        size = tl.full((), 0, tl.int32)
        rank = tl.full((), _NOTHING, tl.int64)
        last_row = tl.full((), _EVERY, tl.int64)
        for turn in range(turns):
            is_old = turn < old_tiles
            place = turn * ROWS + tl.arange(0, ROWS)
            row = _first_row(first_position + turn - old_tiles, tiles, step, ROWS)
            row += tl.arange(0, ROWS)
            row = tl.where(is_old, tl.load(own_rows + place, place < old, -1), row)
            there = (row >= 0) & (row < count)
            value = _values(
                queries + q * dim, rows, stride, tl.where(there, row, 0), dim, poses, target,
                joints, weight, MARGIN, ROWS,
            )  # fmt: skip
            own = _rank(value)
            better = there & ((own > rank) | ((own == rank) & (row < last_row)))
            # Entries move to where they were or before, all of the tile being read.
            tl.debug_barrier()
            to = size + tl.cumsum(better.to(tl.int32), 0) - 1
            tl.store(own_scores + to, value, better)
            tl.store(own_errors + to, 0.0, better)
            tl.store(own_rows + to, row, better)
            size += tl.sum(better.to(tl.int32), 0)
            if (size > capacity - ROWS) | (turn == turns - 1):
                size, rank, last_row = _keep_best(
                    own_scores, own_errors, own_rows, size, k, row_digits, TILE
                )
        tl.store(counts + q, size)


@triton.jit
def select_kernel(
    scores, errors, list_rows, counts, kept, thresholds, capacity, k, TILE: tl.constexpr
):
    """Raises the threshold of a query to what k rows reach, and drops what is below."""
    q = tl.program_id(0).to(tl.int64)
    scores += q * capacity
    errors += q * capacity
    list_rows += q * capacity
    size = tl.load(counts + q)
    threshold = tl.load(thresholds + q)
    if size >= k:
        rank, _, _ = _kth_key(scores, errors, list_rows, size, k, 0, 4, False, TILE)
        rank = rank.to(tl.int32)
        bits = rank ^ ((rank >> 31) & 0x7FFFFFFF)
        reached = bits.to(tl.float32, bitcast=True).to(tl.float64)
        # Values beyond float32 tie as Inf: they give no threshold that could tell them apart.
        reached = tl.where(reached > 2.0**127, 2.0**127, reached)
        raised = reached - tl.abs(reached) * 2.0**-21 - _TINY
        # Rounded to float32 it is still below `reached` by more than a value's rounding.
        is_known = (rank > _NAN) & (reached > -(2.0**127))
        raised = tl.where(is_known, raised, -_INFINITY).to(tl.float32)
        threshold = tl.maximum(threshold, raised)
        tl.store(thresholds + q, threshold)
    size = _compact(scores, errors, list_rows, size, threshold, 0, 0, False, TILE)
    tl.store(counts + q, size)
    tl.store(kept + q, size)


@triton.jit
def evaluate_kernel(
    queries, rows, stride, dim, poses, targets, joints, weight: tl.float64,
    scores, list_rows, counts, capacity, list_tiles, MARGIN: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """The exact values of the lists, in place of their scores."""
    q = (tl.program_id(0) // list_tiles).to(tl.int64)
    begin = tl.program_id(0) % list_tiles * PAIRS
    size = tl.load(counts + q)
    if begin < size:
        place = begin + tl.arange(0, PAIRS)
        row = tl.load(list_rows + q * capacity + place, place < size, 0)
        if MARGIN:
            targets += q * (3 * joints)
        value = _values(
            queries + q * dim, rows, stride, row, dim, poses, targets, joints, weight, MARGIN,
            PAIRS,
        )  # fmt: skip
        tl.store(scores + q * capacity + place, value, place < size)


@triton.jit
def best_kernel(scores, errors, list_rows, counts, capacity, k, row_digits, TILE: tl.constexpr):
    """The k best of every list, whose scores are exact, become its first k."""
    q = tl.program_id(0).to(tl.int64)
    at = q * capacity
    size = tl.load(counts + q)
    _keep_best(scores + at, errors + at, list_rows + at, size, k, row_digits, TILE)


class _Margin(NamedTuple):
    poses: Tensor | None
    targets: Tensor | None
    joints: int
    weight: float


def _padded(dim: int) -> int:
    return max(1, ceil_divide(dim, DEPTH)) * DEPTH


def _code(
    rows: Tensor, codes: Tensor | None, norms: Tensor, errors: Tensor,
    positions: tuple[int, int], order: tuple[int, int],
) -> None:  # fmt: skip
    count, dim = rows.shape
    first, last = positions
    launch(
        code_kernel, last - first, norms,
        rows, rows.stride(0), codes, norms, errors, count, dim, _padded(dim), first, *order,
        ROWS=ROWS, DEPTH=DEPTH,
    )  # fmt: skip


def _order(tiles: int) -> tuple[int, int]:
    """`tiles`, and the step between tiles that are visited one after the other.

    About 0.618 tiles and coprime to their number: any number of first tiles is spread evenly.
    """
    step = max(1, tiles * 618_034 // 10**6)
    while not _are_coprime(tiles, step):
        step += 1
    return tiles, step


def _are_coprime(a: int, b: int) -> bool:
    while b:  # torch.compile does not trace math.gcd
        a, b = b, a % b
    return a == 1


def _search(
    queries: Tensor, rows: Tensor, k: int, margin: _Margin, capacity: int
) -> tuple[Tensor, Tensor]:
    """values and rows [B, k] of dense queries, k <= N."""
    batch, dim = queries.shape
    count, padded = len(rows), _padded(dim)
    # What all kernels that compute exact values take.
    exact = (queries, rows, rows.stride(0), dim, *margin)
    scores, errors = (queries.new_empty((batch, capacity)) for _ in range(2))
    list_rows = queries.new_empty((batch, capacity), dtype=torch.int64)
    thresholds = queries.new_full((batch,), -torch.inf)

    across = max(16, power_of_2(batch, QUERIES))
    query_tiles = ceil_divide(batch, across)
    code_tiles = ceil_divide(query_tiles * across, ROWS)
    query_codes = queries.new_empty((code_tiles * ROWS, padded), dtype=torch.bfloat16)
    query_norms, query_errors = (queries.new_empty(code_tiles * ROWS) for _ in range(2))
    _code(queries, query_codes, query_norms, query_errors, (0, code_tiles), (code_tiles, 1))

    in_place = rows.dtype == torch.bfloat16 and dim == padded
    tiles = ceil_divide(count, ROWS)
    order = _order(tiles)
    chunk = min(tiles, max(1, CODES // (ROWS * padded)))
    row_norms, row_errors = (queries.new_empty(chunk * ROWS) for _ in range(2))
    codes = None if in_place else rows.new_empty((chunk * ROWS, padded), dtype=torch.bfloat16)
    # Two programs share a multiprocessor, one multiplying while the other appends.
    registers = 128 if margin.poses is None else None
    # Rounded up; 0 stays.
    gate_weight = min(margin.weight, 1e38) * (1 + 2**-20)
    if margin.weight > 0:
        gate_weight = max(gate_weight, 2.0**-100) if margin.weight <= 1e38 else math.inf

    first, last = 0, min(tiles, capacity // ROWS)
    counts = queries.new_full((batch,), last * ROWS, dtype=torch.int32)
    kept = torch.zeros_like(counts)
    lists = (scores, errors, list_rows, counts)
    row_digits = ceil_divide(count.bit_length(), 8)
    list_tiles = ceil_divide(capacity, PAIRS)
    tile = power_of_2(capacity, TILE)
    while first < tiles:
        for begin in range(first, last, chunk):
            end = min(begin + chunk, last)
            _code(rows, codes, row_norms, row_errors, (begin, end), order)
            launch(
                screen_kernel, (end - begin) * query_tiles, scores,
                query_codes, query_norms, query_errors,
                rows if codes is None else codes, rows.stride(0) if codes is None else padded,
                row_norms, row_errors, *margin[:3], gate_weight, *lists, thresholds, capacity,
                batch, count, padded, (dim + 16) * 2.0**-22, begin, *order, query_tiles,
                FIRST=first == 0, CODED=codes is not None, MARGIN=margin.poses is not None,
                OPERAND=_OPERAND, ROWS=ROWS, QUERIES=across, DEPTH=DEPTH,
                num_warps=8, num_stages=3, maxnreg=registers,
            )  # fmt: skip
        if margin.poses is not None:
            launch(
                margin_kernel, batch * list_tiles, scores,
                *lists, kept, capacity, *margin, list_tiles, PAIRS=PAIRS,
            )  # fmt: skip
        if first > 0:
            launch(
                recover_kernel, batch, scores,
                *exact, *lists, kept, capacity, count, k, row_digits, first, last, *order,
                MARGIN=margin.poses is not None, ROWS=ROWS, TILE=tile,
            )  # fmt: skip
        launch(select_kernel, batch, scores, *lists, kept, thresholds, capacity, k, TILE=tile)
        first, last = last, min(tiles, _GROWTH * last, last + _MOST_ROWS // ROWS)
    launch(
        evaluate_kernel, batch * list_tiles, scores,
        *exact, scores, list_rows, counts, capacity, list_tiles,
        MARGIN=margin.poses is not None, PAIRS=PAIRS,
    )  # fmt: skip
    launch(best_kernel, batch, scores, *lists, capacity, k, row_digits, TILE=tile)
    # By row, and then by value in a sort that keeps this order; the negative puts NaN last.
    best_rows, places = list_rows[:, :k].sort(dim=1)
    values = scores[:, :k].gather(1, places)
    ranks = (-values).sort(dim=1, stable=True).indices
    return values.gather(1, ranks), best_rows.gather(1, ranks)


def search(
    queries: Tensor,
    candidates: Tensor,
    k: int,
    poses: Tensor | None = None,
    targets: Tensor | None = None,
    margin_weight: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """values [B, k] float32 and indices [B, k], by rank; -inf and -1 where k > N.

    Queries float32; candidates float32, float16 or bfloat16, rows of any stride; poses and targets
    float32.
    """
    batch, count = len(queries), len(candidates)
    values = queries.new_full((batch, k), -torch.inf)
    indices = torch.full_like(values, -1, dtype=torch.int64)
    if batch == 0 or count == 0:
        return values, indices
    queries, rows = queries.contiguous(), dense_rows(candidates)
    margin = _Margin(None, None, 0, 0.0)
    if poses is not None and targets is not None:
        margin = _Margin(poses.contiguous(), targets.contiguous(), poses.shape[1], margin_weight)
    found = min(k, count)
    # Room for the k best, for as many of each of the next rounds, and for a tile beside k.
    capacity = min(max(LIST, 2 * _GROWTH * found, found + ROWS), ceil_divide(count, ROWS) * ROWS)
    if capacity > _MOST_ROWS:
        raise ValueError(f"k must be at most {_MOST_ROWS // (2 * _GROWTH)} on Triton, got {k}")
    at_once = max(QUERIES, LISTS // capacity)
    for first in range(0, batch, at_once):
        part = slice(first, first + at_once)
        own = margin
        if margin.targets is not None:
            own = margin._replace(targets=margin.targets[part])
        values[part, :found], indices[part, :found] = _search(
            queries[part], rows, found, own, capacity
        )
    return values, indices
