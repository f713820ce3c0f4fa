"""The package's version, without its imports."""

__version__ = "0.1.0"
