"""The version, where the package's metadata can read it without Keras."""

__version__ = "0.1.0"
