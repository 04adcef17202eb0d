"""What every Python program here needs: the nonce, ready, go, result."""
import os
import sys

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


def ready():
    say("ready", f"{os.getpid()} {fnv1a(NONCE.encode()):016x}\n")


def told_to_go():
    return os.path.exists(os.path.join(DIR, "go"))


def finish(result):
    say("result", f"{result}\n{NONCE}\n")


def run(main):
    try:
        main()
        finish("ok")
    except BaseException as error:
        finish(repr(error))
        raise
