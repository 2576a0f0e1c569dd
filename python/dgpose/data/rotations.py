"""Vectors and rotations of batches, with results that do not depend on the size of the batch.

A rotation [..., 3, 3] is applied to row vectors: ``turned = points @ rotation``.
"""

from __future__ import annotations

import numpy as np

from dgpose.data.counter_rng import FloatArray


def unit(v: FloatArray) -> FloatArray:
    """``v`` [..., 3] scaled to length 1; a zero vector stays zero."""
    length = np.sqrt(v[..., 0] * v[..., 0] + v[..., 1] * v[..., 1] + v[..., 2] * v[..., 2])
    return v / np.maximum(length, 1e-9)[..., None]


def cross(a: FloatArray, b: FloatArray) -> FloatArray:
    """Cross product of [..., 3] arrays."""
    return np.stack(
        [
            a[..., 1] * b[..., 2] - a[..., 2] * b[..., 1],
            a[..., 2] * b[..., 0] - a[..., 0] * b[..., 2],
            a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0],
        ],
        axis=-1,
    )


def dot(a: FloatArray, b: FloatArray) -> FloatArray:
    """Inner product over the last axis of [..., 3] arrays, kept as an axis of length 1."""
    return a[..., 0:1] * b[..., 0:1] + a[..., 1:2] * b[..., 1:2] + a[..., 2:3] * b[..., 2:3]


def apply_rotation(points: FloatArray, rotation: FloatArray) -> FloatArray:
    """``points @ rotation`` for [..., 3] and [..., 3, 3].

    Written out instead of a matrix product, whose order of summation depends on the batch size.
    """
    return (
        points[..., 0:1] * rotation[..., 0, :]
        + points[..., 1:2] * rotation[..., 1, :]
        + points[..., 2:3] * rotation[..., 2, :]
    )


def rotation_from_vector(vector: FloatArray) -> FloatArray:
    """Rotation matrices [..., 3, 3] (row convention) of rotation vectors [..., 3] in radians."""
    angle = np.sqrt(dot(vector, vector))
    axis = vector / np.maximum(angle, 1e-12)
    eye = np.broadcast_to(np.eye(3), (*vector.shape, 3))
    return rotate_about(eye, axis[..., None, :], angle[..., None, :])


def vector_from_rotation(rotation: FloatArray) -> FloatArray:
    """Rotation vector [3] (at most half a turn) of one matrix [3, 3] in row convention."""
    m = rotation.T
    # Unit quaternion from the largest of its squared components (Shepperd 1978).
    squares = np.array([np.trace(m), *(2.0 * m[i, i] - np.trace(m) for i in range(3))])
    skew = np.array([m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]])
    best = int(np.argmax(squares))
    if best == 0:
        quaternion = np.array([1.0 + squares[0], *skew])
    else:
        i = best - 1
        quaternion = np.array([skew[i], *(m[i] + m[:, i])])
        quaternion[best] = 1.0 + squares[best]
    quaternion /= np.linalg.norm(quaternion)
    if quaternion[0] < 0.0:
        quaternion = -quaternion
    sine = float(np.linalg.norm(quaternion[1:]))
    angle = 2.0 * np.arctan2(sine, quaternion[0])
    vector: FloatArray = quaternion[1:] * (angle / sine if sine > 1e-12 else 2.0)
    return vector


def rotate_about(points: FloatArray, axis: FloatArray, angle: FloatArray) -> FloatArray:
    """Points [..., 3] turned about a unit axis [..., 3] by ``angle`` [..., 1] radians."""
    c, s = np.cos(angle), np.sin(angle)
    return points * c + cross(axis, points) * s + axis * dot(axis, points) * (1.0 - c)
