"""Search vision transformers and accelerators together."""

__version__ = "0.1.0"
__all__ = ["__version__"]
