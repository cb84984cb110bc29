"""fastgan: the fastest way to train an MLP GAN and to serve the data it has learned."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fastgan")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
