"""Data sources: each is read into one :class:`~fastgan.data.schema.Data`."""

from fastgan.data.schema import Data, Schema

__all__ = ["Data", "Schema"]
