"""Data sources: :func:`load` reads each into one :class:`~fastgan.data.schema.Data`."""

from fastgan.data.schema import Data, Schema
from fastgan.data.sources import load

__all__ = ["Data", "Schema", "load"]
