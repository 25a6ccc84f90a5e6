"""Counter-based random numbers: known answers, and the normal law in all directions."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from sgdbook import threefry as room
from sgdbook.devices import generator
from sgdbook.threefry import new_key, normals, threefry

FLOATS = [torch.float32, torch.float64]


def words(text):
    """Return words in hexadecimal as int32 tensors."""
    unsigned = torch.tensor([int(w, 16) for w in text.split()])
    return list(unsigned.to(torch.int32).unbind())


def block(paths=1_000_000, number=0, dtype=torch.float64, seed=0, device="cpu"):
    """Return four normal numbers for each path, shape (4, paths)."""
    path = torch.arange(paths, dtype=torch.int32, device=device)
    at = torch.tensor(number, dtype=torch.int32, device=device)
    key = new_key(generator(seed, "cpu")).to(device)
    return torch.stack(normals(path, at, key, dtype))


@pytest.fixture(scope="module")
def million():
    return block(250_000)


ZERO, ONES = "0 0 0 0", " ".join(["ffffffff"] * 4)
PI = (
    "243f6a88 85a308d3 13198a2e 03707344",
    "a4093822 299f31d0 082efa98 ec4e6c89",
)


@pytest.mark.parametrize(
    "counter, key, rounds, answer",
    [
        (ZERO, ZERO, 13, "531c7e4f 39491ee5 2c855a92 3d6abf9a"),
        (ONES, ONES, 13, "c4189358 1c9cc83a d5881c67 6a0a89e0"),
        (*PI, 13, "4aa71d8f 734738c2 431fc6a8 ae6debf1"),
        (ZERO, ZERO, 20, "9c6ca96a e17eae66 fc10ecd4 5256a7d8"),
        (ONES, ONES, 20, "2a881696 57012287 f6c7446e a16a6732"),
    ],
)
def test_known_answers(counter, key, rounds, answer):
    """From the file kat_vectors of Random123, where threefry is threefry4x32."""
    found = threefry(words(counter), words(key), rounds)
    assert torch.equal(torch.stack(found), torch.stack(words(answer)))


def test_thirteen_rounds_unless_told():
    assert room.ROUNDS == 13
    default = threefry(words(ZERO), words(ZERO))
    assert [int(w) for w in default] == [int(w) for w in threefry(*[words(ZERO)] * 2)]
    assert f"{int(default[3]) % 2**32:08x}" == "3d6abf9a"


def test_every_bit_of_counter_and_key_matters():
    """A bit that flips in the input flips half of the 128 in the output."""
    for where in range(8):
        for place in range(32):
            flip = torch.tensor(1 << place).to(torch.int32)
            given = [torch.tensor(12345 * k, dtype=torch.int32) for k in range(8)]
            before = torch.stack(threefry(given[:4], given[4:]))
            given[where] = given[where] ^ flip
            after = torch.stack(threefry(given[:4], given[4:]))
            changed = sum(bin(int(w) % 2**32).count("1") for w in before ^ after)
            assert 30 < changed < 98, (where, place)


def test_a_key_is_drawn_once():
    one, other = generator(5, "cpu"), generator(5, "cpu")
    key = new_key(one)
    assert key.dtype == torch.int32 and key.shape == (4,)
    assert torch.equal(key, new_key(other))
    assert torch.equal(one.get_state(), other.get_state())
    assert not torch.equal(key, new_key(one))


def test_keys_use_all_bits():
    rng = generator(6, "cpu")
    keys = torch.stack([new_key(rng) for _ in range(500)])
    share = [float(((keys >> k) & 1).double().mean()) for k in range(32)]
    assert max(abs(s - 0.5) for s in share) < 5 * 0.5 / math.sqrt(2000)


def test_moments(million):
    flat = million.flatten()
    for power, truth, spread in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        error = math.sqrt(spread / len(flat))
        assert abs(float((flat**power).mean()) - truth) < 5 * error, power


@pytest.mark.parametrize("dtype", FLOATS)
def test_the_law_is_normal(dtype):
    values = block(250_000, dtype=dtype, seed=1)
    for four in values.double().numpy():
        assert stats.kstest(four, "norm").pvalue > 1e-3
        assert stats.kstest(four, stats.norm(scale=1.03).cdf).pvalue < 1e-3
    inside = np.array([0.5, 1, 2, 3, 4, 4.5])
    size = values.double().abs().flatten().numpy()
    for low in inside:
        expected = len(size) * 2 * stats.norm.sf(low)
        assert abs((size > low).sum() - expected) < 5 * math.sqrt(expected), low


def test_the_four_numbers_are_independent(million):
    paths = million.shape[1]
    for power in (1, 2):
        values = million**power
        correlation = torch.corrcoef(values) - torch.eye(4, dtype=torch.float64)
        assert float(correlation.abs().max()) < 5 / math.sqrt(paths)


@pytest.mark.parametrize(
    "other",
    [{"number": 1}, {"number": 2**20}, {"seed": 2}],
    ids=["next block", "far block", "other key"],
)
def test_blocks_and_keys_are_independent(million, other):
    values = block(million.shape[1], **other)
    for power in (1, 2):
        both = torch.cat([million**power, values**power])
        correlation = torch.corrcoef(both)[:4, 4:]
        assert float(correlation.abs().max()) < 5 / math.sqrt(million.shape[1])


def test_neighbouring_paths_are_independent(million):
    for power in (1, 2):
        values = million**power
        both = torch.cat([values[:, 1:], values[:, :-1]])
        correlation = torch.corrcoef(both)[:4, 4:]
        assert float(correlation.abs().max()) < 5 / math.sqrt(million.shape[1])


def test_a_path_and_a_block_have_numbers_of_their_own(million):
    few = block(100)
    assert torch.equal(few, million[:, :100])
    assert len(million.flatten().unique()) == million.numel()
    swapped = torch.stack(
        normals(
            torch.tensor([3], dtype=torch.int32),
            torch.tensor(7, dtype=torch.int32),
            new_key(generator(0, "cpu")),
            torch.float64,
        )
    )
    assert torch.equal(swapped, block(4, number=7)[:, 3:])
    assert not torch.equal(swapped, block(8, number=3)[:, 7:])


def test_single_and_double_precision_agree():
    double = block(200_000)
    single = block(200_000, dtype=torch.float32)
    assert single.dtype == torch.float32
    error = (single - double).abs()
    assert float(error.max()) < 4e-5  # where u is nearly 1, and the radius small
    assert float(error.mean()) < 1e-7


@pytest.mark.parametrize("dtype", FLOATS)
def test_pairs_are_those_of_box_and_muller(dtype):
    """Also at the ends of the range, and never larger than 6.7."""
    edge = torch.tensor([-(2**31), -(2**30), -1, 0, 1, 2**30, 2**31 - 1])
    first, second = torch.cartesian_prod(edge, edge).to(torch.int32).unbind(1)
    found = torch.stack(room._pair(first, second, dtype)).double().numpy()
    u = np.abs(first.numpy() + 0.5) / 2**31
    v = second.numpy() / 2**32
    radius = np.sqrt(-2 * np.log(u))
    truth = radius * np.stack([np.cos(2 * np.pi * v), np.sin(2 * np.pi * v)])
    # In single precision 2**31 - 1/2 is 2**31: the radius is 0, not 2e-5.
    allowed = 3e-5 if dtype == torch.float32 else 1e-14
    np.testing.assert_allclose(found, truth, atol=allowed)
    largest = math.sqrt(2 * 32 * math.log(2))
    assert np.abs(found).max() == pytest.approx(largest, rel=1e-6)
    assert largest < 6.7


def ulps(found, truth, dtype):
    """Return the largest error in units of the last place of the truth."""
    one = {torch.float32: np.float32, torch.float64: np.float64}[dtype]
    spacing = np.spacing(np.abs(truth).astype(one)).astype(np.longdouble)
    return float((np.abs(found.numpy().astype(np.longdouble) - truth) / spacing).max())


@pytest.mark.parametrize("dtype", FLOATS)
def test_logarithm(dtype):
    """Over all that occurs: from 2**-32 to 1, and around the seams."""
    rng = generator(8, "cpu")
    u = torch.cat(
        [
            torch.exp2(-32 * torch.rand(200_000, generator=rng, dtype=dtype)),
            torch.rand(200_000, generator=rng, dtype=dtype).clamp(min=2.0**-32),
            torch.exp2(-torch.arange(33, dtype=dtype)),
            torch.exp2(-torch.arange(0.5, 32, dtype=dtype)),
            1 - torch.finfo(dtype).eps * torch.arange(1, 50, dtype=dtype),
        ]
    )
    truth = np.log(u.numpy().astype(np.longdouble))
    assert float(room._log(torch.ones(1, dtype=dtype))) == 0
    inside = (u < 1).numpy()
    assert ulps(room._log(u)[inside], truth[inside], dtype) < 4


@pytest.mark.parametrize("dtype", FLOATS)
def test_cosine_and_sine(dtype):
    rng = generator(9, "cpu")
    t = torch.rand(200_000, generator=rng, dtype=dtype) - 0.5
    t = torch.cat([t, torch.tensor([-0.5, -0.25, 0, 0.25, 0.5], dtype=dtype)])
    angle = np.pi * t.double().numpy()
    c, s = room._cos_sin_pi(t)
    eps = torch.finfo(dtype).eps
    assert np.abs(c.double().numpy() - np.cos(angle)).max() < 2 * eps
    assert np.abs(s.double().numpy() - np.sin(angle)).max() < 2 * eps
    assert float(s[-3]) == 0 and float(c[-3]) == 1


@pytest.mark.parametrize("places", [1, 5, 16, 27, 31])
def test_rotation(places):
    for word in (1, 0x80000000, 0xDEADBEEF, 0xFFFFFFFF, 0):
        given = torch.tensor(word).to(torch.int32)
        truth = (word << places | word >> (32 - places)) % 2**32
        assert int(room._rotate(given, places)) % 2**32 == truth


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_same_numbers_on_a_gpu():
    for dtype, allowed in zip(FLOATS, (4e-5, 1e-14), strict=True):
        there = block(10_000, dtype=dtype, device="cuda").cpu()
        assert float((there - block(10_000, dtype=dtype)).abs().max()) < allowed
