"""numpy: arrays, views of them, a memory-mapped one, and a random generator in mid-sequence."""
import os
import time

import numpy

from protocol import DIR, ready, run, told_to_go


def main():
    generator, again = numpy.random.default_rng(7), numpy.random.default_rng(7)
    matrix = generator.standard_normal((1000, 1000))
    product = matrix @ matrix.T
    view = product[::3, ::7]
    mapped = numpy.memmap(os.path.join(DIR, "mapped"), dtype="int64", mode="w+", shape=(100000,))
    mapped[:] = numpy.arange(100000)
    rounds = 0
    ready()
    while not told_to_go():
        rounds += 1
        assert numpy.allclose(matrix @ matrix.T, product)
    expected = again.standard_normal((1000, 1000))
    assert (expected == matrix).all() and numpy.allclose(view, (expected @ expected.T)[::3, ::7])
    assert generator.integers(1 << 62) == again.integers(1 << 62), "the generator is elsewhere"
    assert mapped.sum() == 100000 * 99999 // 2
    assert rounds >= 0 and time.monotonic() > 0


run(main)
