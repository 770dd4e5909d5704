"""The layers, one per module; modules with an underscore hold base classes."""
