"""The version of the package. STREAM_VERSION, that of the numbers, is in winit_fast.streams."""

__version__ = "0.1.0"
