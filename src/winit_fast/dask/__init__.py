"""Dask: arrays whose values do not depend on the chunks, and checkpoints written by a cluster."""

try:
    import dask.array  # noqa: F401
except ImportError as error:
    raise ImportError(
        "winit_fast.dask needs Dask's arrays, which are not installed: "
        "pip install 'winit_fast[dask]'"
    ) from error

from winit_fast.dask.arrays import from_initializer
from winit_fast.dask.checkpoint import write_checkpoint

__all__ = ["from_initializer", "write_checkpoint"]
