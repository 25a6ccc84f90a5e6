r"""Random numbers that are a function of where they are used: the Threefry generator.

A counter-based generator has no state.  It scrambles a counter under a key, so that
the noise of path i in step k is a function of the seed, i and k alone, however many
paths there are, on whatever device and in whatever order they are computed.  And a
function can be compiled together with what uses it, which a call to `torch.randn`
cannot.

Words are 32-bit integers in ``int32`` tensors, whose overflow wraps around.
"""

from __future__ import annotations

import math

import torch

ROUNDS = 13
_ROTATIONS = (
    (10, 26),
    (11, 21),
    (13, 27),
    (23, 5),
    (6, 20),
    (17, 11),
    (25, 10),
    (18, 20),
)
_PARITY = 0x1BD11BDA
# Of a floating type: the integer of its size, bits of the mantissa, the word of
# sqrt(1/2), and how many terms of the series for cos and sin, and for log, it resolves.
_FORMATS = {
    torch.float32: (torch.int32, 23, 0x3F3504F3, 7, 5),
    torch.float64: (torch.int64, 52, 0x3FE6A09E667F3BCD, 11, 11),
}


def new_key(generator):
    """Draw a key.

    Parameters
    ----------
    generator : torch.Generator
        Advances by one draw.

    Returns
    -------
    torch.Tensor, shape (4,), int32
        On the generator's device.
    """
    return torch.randint(
        -(2**31),
        2**31,
        (4,),
        dtype=torch.int32,
        generator=generator,
        device=generator.device,
    )


def threefry(counter, key, rounds=ROUNDS):
    """Scramble a counter of four words under a key of four words.

    Parameters
    ----------
    counter : sequence of four torch.Tensor, int32
        Of shapes that broadcast.
    key : sequence of four torch.Tensor, int32
    rounds : int
        13, one more than pass the test suite BigCrush; 20 are usual in libraries.

    Returns
    -------
    list of four torch.Tensor, int32

    References
    ----------
    Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3",
    SC 2011.

    Examples
    --------
    >>> zero = [torch.tensor(0, dtype=torch.int32)] * 4
    >>> f"{int(threefry(zero, zero)[0]) % 2**32:08x}"
    '531c7e4f'
    """
    key = [*key, key[0] ^ key[1] ^ key[2] ^ key[3] ^ _PARITY]
    a, b, c, d = (w + k for w, k in zip(counter, key, strict=False))
    for r in range(rounds):
        if r % 2:
            b, d = d, b
        first, second = _ROTATIONS[r % 8]
        a = a + b
        b = _rotate(b, first) ^ a
        c = c + d
        d = _rotate(d, second) ^ c
        if r % 2:
            b, d = d, b
        if r % 4 == 3:
            n = r // 4 + 1
            a, b, c, d = (w + key[(n + i) % 5] for i, w in enumerate((a, b, c, d)))
            d = d + n
    return [a, b, c, d]


def normals(path, block, key, dtype):
    r"""Return four standard normal numbers for a path, by the Box-Muller transform.

    .. math:: \sqrt{-2\ln u}\,(\cos2\pi v,\ \sin2\pi v)

    Parameters
    ----------
    path : torch.Tensor, shape (paths,), int32
        Numbers of the paths.
    block : torch.Tensor, shape (), int32
        Which four of the path.
    key : torch.Tensor, shape (4,), int32
    dtype : torch.dtype
        ``torch.float32`` or ``torch.float64``.

    Returns
    -------
    list of four torch.Tensor, shape (paths,)
        With u and v multiples of 2**-32: no value exceeds 6.7 in size, which one in
        5e10 normal numbers would.
    """
    nought = torch.zeros_like(block)
    words = threefry([path, block, nought, nought], key.unbind())
    pairs = (_pair(*words[:2], dtype), _pair(*words[2:], dtype))
    return [*pairs[0], *pairs[1]]


def _pair(first, second, dtype):
    """Return two normal numbers from two words."""
    # A float has its finest steps at 0, where u makes the tails.
    u = (first.to(dtype) + 0.5).abs() * 2.0**-31
    radius = torch.sqrt(-2 * _log(u))
    c, s = _cos_sin_pi(second.to(dtype) * 2.0**-32)
    return radius * (c * c - s * s), radius * (2 * c * s)  # twice the angle


# Series that the compiler keeps in registers, where it would call a library for
# torch.log and torch.cos.


def _log(u):
    """Return the logarithm of u from the bits of a float, u = m 2**e."""
    integer, mantissa, root, _, terms = _FORMATS[u.dtype]
    bits = u.view(integer)
    e = (bits - root) >> mantissa
    m = (bits - (e << mantissa)).view(u.dtype)  # from sqrt(1/2) to sqrt(2)
    s = (m - 1) / (m + 1)
    square, total = s * s, 0.0
    for k in reversed(range(terms)):
        total = 2 / (2 * k + 1) + square * total  # log m = 2 artanh s
    return e.to(u.dtype) * math.log(2) + s * total


def _cos_sin_pi(t):
    """Return cos and sin of pi t for t from -1/2 to 1/2."""
    square, c, s = t * t, 0.0, 0.0
    for k in reversed(range(_FORMATS[t.dtype][3])):
        c = (-1) ** k * math.pi ** (2 * k) / math.factorial(2 * k) + square * c
        s = (-1) ** k * math.pi ** (2 * k + 1) / math.factorial(2 * k + 1) + square * s
    return c, t * s


def _rotate(word, places):
    """Rotate the bits of a word to the left."""
    return (word << places) | ((word >> (32 - places)) & ((1 << places) - 1))
