"""numpy: arrays, views of them, a memory-mapped one, and a random generator in mid-sequence."""
import os
import sys
import time

import numpy

DIR = sys.argv[1]
NONCE = os.urandom(16).hex()


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def say(name, text):
    draft = os.path.join(DIR, "." + name)
    with open(draft, "w") as file:
        file.write(text)
    os.rename(draft, os.path.join(DIR, name))


def main():
    generator, again = numpy.random.default_rng(7), numpy.random.default_rng(7)
    matrix = generator.standard_normal((1000, 1000))
    product = matrix @ matrix.T
    view = product[::3, ::7]
    mapped = numpy.memmap(os.path.join(DIR, "mapped"), dtype="int64", mode="w+", shape=(100000,))
    mapped[:] = numpy.arange(100000)
    rounds = 0
    say("ready", f"{os.getpid()} {fnv1a(NONCE.encode()):016x}\n")
    while not os.path.exists(os.path.join(DIR, "go")):
        rounds += 1
        assert numpy.allclose(matrix @ matrix.T, product)
    expected = again.standard_normal((1000, 1000))
    assert (expected == matrix).all() and numpy.allclose(view, (expected @ expected.T)[::3, ::7])
    assert generator.integers(1 << 62) == again.integers(1 << 62), "the generator is elsewhere"
    assert mapped.sum() == 100000 * 99999 // 2
    assert rounds >= 0 and time.monotonic() > 0


try:
    main()
    say("result", f"ok\n{NONCE}\n")
except BaseException as error:
    say("result", f"{error!r}\n{NONCE}\n")
    raise
