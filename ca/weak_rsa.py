"""RSA keys that somebody else can factor, although they are long. Pure.

Sources: CA/Browser Forum Baseline Requirements 6.1.1.3 and 6.1.6 (ROCA, close primes, small factors); Nemec et al.,
"The Return of Coppersmith's Attack" (CCS 2017), section 4.1: such keys are powers of 65537 modulo each small prime.
"""

from __future__ import annotations

from functools import cache
from math import gcd, isqrt, prod

CLOSE_PRIMES_ROUNDS = 100
_ROCA_GENERATOR = 65537
_ROCA_LARGEST_PRIME = 167
_SMALL_PRIMES_BELOW = 752


def weakness(modulus: int) -> str:
    """What is wrong with `modulus`; "" when nothing is known to be."""
    if gcd(modulus, _small_primes_product()) != 1:
        return "its modulus has a small factor"
    if _close_primes(modulus):
        return "the two primes of its modulus lie next to each other"
    if all(modulus % prime in powers for prime, powers in _roca_marks()):
        return "it was made by a generator whose keys can be factored (ROCA, CVE-2017-15361)"
    return ""


def _close_primes(modulus: int) -> bool:
    """Fermat's method, a few rounds of it."""
    half = isqrt(modulus)
    for middle in range(half + (half * half < modulus), half + CLOSE_PRIMES_ROUNDS):
        square = middle * middle - modulus
        if isqrt(square) ** 2 == square:
            return True
    return False


@cache
def _roca_marks() -> tuple[tuple[int, frozenset[int]], ...]:
    """The primes modulo which not every number is a power of the generator, and the powers."""
    marks = []
    for prime in _primes(_ROCA_LARGEST_PRIME + 1):
        if prime == 2:
            continue
        powers = frozenset(pow(_ROCA_GENERATOR, exponent, prime) for exponent in range(prime - 1))
        if len(powers) < prime - 1:
            marks.append((prime, powers))
    return tuple(marks)


@cache
def _small_primes_product() -> int:
    return prod(_primes(_SMALL_PRIMES_BELOW))


def _primes(below: int) -> list[int]:
    return [n for n in range(2, below) if all(n % divisor for divisor in range(2, isqrt(n) + 1))]
