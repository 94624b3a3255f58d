"""The version of the package. That of the streams stands with them."""

__version__ = "0.1.0"
