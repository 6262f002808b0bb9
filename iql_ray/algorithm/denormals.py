"""Subnormal numbers counted as zero for a while: decayed moments of Adam would otherwise crawl through them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Within, this thread's arithmetic takes subnormal numbers for 0; afterwards it is as it was before.

    The processor's mode is one of the whole thread, Python's own floats included, so a library must give it back.
    """
    was_flushing = are_denormals_flushed()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(was_flushing)


def are_denormals_flushed() -> bool:
    """Whether half the smallest normal float64 is 0 in this thread."""
    return sys.float_info.min / 2 == 0.0
