"""One head for all tests of jobs: starting it takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.jobs.head import Head, running_head


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    with running_head() as head:
        yield head
