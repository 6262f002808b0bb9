"""Ray Data's settings for every read of ours: rows in their order whatever the cluster, and nothing on the console."""

from __future__ import annotations

import logging

from ray.data import DataContext


def ordered_context() -> DataContext:
    """A copy of the current settings that keeps order and stays quiet; use as `with DataContext.current(...)`."""
    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)  # it warns that bars are off, as asked
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = True
    return context
