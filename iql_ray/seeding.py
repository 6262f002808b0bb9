"""One run seed, many independent child seeds, each by name, so that adding a consumer never shifts another."""

from __future__ import annotations

import hashlib

MAX_SEED = 2**63 - 1
"""The largest seed that every consumer takes (torch generators, numpy; see `child_seed_32` for gymnasium)."""


def child_seed(seed: int, *names: str | int) -> int:
    """A seed in [0, 2^63) that depends on the run seed and on the whole path of names.

    Example: `child_seed(0, "sampler", rank)` is unrelated to `child_seed(0, "sampler", rank + 1)`.
    """
    path = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(path.encode()).digest()[:8], "little") & MAX_SEED


def child_seed_32(seed: int, *names: str | int) -> int:
    """The same in [0, 2^31), for gymnasium's `reset(seed=...)`."""
    return child_seed(seed, *names) & (2**31 - 1)
