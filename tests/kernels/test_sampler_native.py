"""The native sampler itself, below the one of Python that gives each caller a turn."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from helpers.generators import generator_of, spec_of
from helpers.parity import ISAS  # noqa: F401 (skips where there is no native module)

from fastgan.noise import Stream
from fastgan.sampler import Sampler
from fastgan.sampler_cpu import native_sampler


def test_a_second_caller_is_refused_and_the_first_gets_the_right_rows():
    generator = generator_of(spec_of(13))
    native, affine = native_sampler(generator, None, 1), generator.schema.affine("sigmoid")
    whole, part, refused = np.empty((300_000, 13), np.uint8), np.empty((5, 13), np.uint8), 0

    def rows(out):
        native.rows(3, int(Stream.SAMPLES), 0, None, out, *affine)

    def compute():
        while True:
            try:
                return rows(whole)
            except RuntimeError:  # the other one was faster
                pass

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(compute)
        while not running.done():
            try:
                rows(part)
            except RuntimeError as error:
                refused += str(error) == "sampler: it computes in another thread"
    assert refused and running.exception() is None
    np.testing.assert_array_equal(whole, Sampler(generator, 3).rows(0, 300_000))
