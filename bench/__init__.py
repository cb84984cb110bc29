"""Benchmarks: fastgan against what people would use instead, and against the machine's limits (README.md)."""
