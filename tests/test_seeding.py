"""Child seeds: the same path gives the same seed, any other path an unrelated one, in every consumer's range."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from iql_ray.seeding import MAX_SEED, child_seed, child_seed_32

SEEDS = st.integers(0, 2**40)
NAMES = st.lists(st.one_of(st.text("abcxyz_", min_size=1), st.integers(0, 1000)), max_size=3)


def test_a_seed_is_what_it_was_when_the_first_run_was_saved():
    """A changed derivation would silently change every run that is resumed or repeated."""
    assert child_seed(0, "sampler", 0) == 2836820242761627243
    assert child_seed_32(0, "sampler", 0) == 2836820242761627243 % 2**31


def test_ranks_seeds_and_names_each_change_the_seed():
    seeds = {child_seed(seed, name, rank) for seed in range(3) for name in ("sampler", "policy") for rank in range(4)}
    assert len(seeds) == 3 * 2 * 4


def test_a_path_is_not_its_concatenation():
    assert child_seed(0, "rank", 12) != child_seed(0, "rank1", 2)


@given(SEEDS, NAMES)
def test_every_seed_fits_torch_and_every_short_one_gymnasium(seed, names):
    assert 0 <= child_seed(seed, *names) <= MAX_SEED < 2**63
    assert 0 <= child_seed_32(seed, *names) < 2**31
