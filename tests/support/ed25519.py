"""Ed25519 signatures verified by nothing but the formulas of RFC 8032, section 5.1: slow, and nobody else's code."""

from __future__ import annotations

import hashlib

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P

#: A point of the curve, as x and y.
Point = tuple[int, int]


def add(a: Point, b: Point) -> Point:
    """The sum of two points (the curve's equation in affine coordinates)."""
    product = D * a[0] * b[0] * a[1] * b[1] % P
    x = (a[0] * b[1] + a[1] * b[0]) * pow(1 + product, -1, P)
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, P)
    return x % P, y % P


def times(count: int, point: Point) -> Point:
    """The sum of `count` equal points."""
    total: Point = (0, 1)
    while count:
        if count & 1:
            total = add(total, point)
        point = add(point, point)
        count >>= 1
    return total


def decode(data: bytes) -> Point:
    """A point from its 32 bytes: y, and one bit of x. Raises `ValueError` for what is on no curve."""
    number = int.from_bytes(data, "little")
    y, odd = number & (2**255 - 1), number >> 255
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if y >= P or x * x % P != square:
        raise ValueError("not a point")
    return (P - x if x & 1 != odd else x), y


BASE = decode((4 * pow(5, -1, P) % P).to_bytes(32, "little"))


def is_signed(message: bytes, signature: bytes, public_key: bytes) -> bool:
    """Whether `signature` is that of `message` by the key whose public half this is."""
    if len(signature) != 64 or len(public_key) != 32:
        return False
    try:
        key, first = decode(public_key), decode(signature[:32])
    except ValueError:
        return False
    second = int.from_bytes(signature[32:], "little")
    if second >= ORDER:
        return False
    hashed = hashlib.sha512(signature[:32] + public_key + message).digest()
    return times(second, BASE) == add(first, times(int.from_bytes(hashed, "little") % ORDER, key))
