"""Dask arrays from an initializer; the values do not depend on the chunks."""

try:
    import dask.array  # noqa: F401
except ImportError as error:
    raise ImportError(
        "winit_fast.dask needs Dask's arrays, which are not installed: "
        "pip install 'winit_fast[dask]'"
    ) from error

from winit_fast.dask.arrays import from_initializer

__all__ = ["from_initializer"]
