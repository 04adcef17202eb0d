"""A program in a pseudoterminal, typed to before and after: tmux with two shells, vi, script, sqlite3 in
the middle of a transaction."""
import fcntl
import os
import pty
import select
import sqlite3
import struct
import subprocess
import sys
import termios
import time

from protocol import DIR, NONCE, ready, run, told_to_go

KIND = sys.argv[2]
SHELL = ["env", "-i", f"PATH={os.environ['PATH']}", "PS1=> ", "TERM=screen", "sh"]


def hold():
    ready()
    while not told_to_go():
        time.sleep(0.01)


class Screen:
    """A program with a terminal of its own."""

    def __init__(self, *argv):
        self.pid, self.master = pty.fork()
        if not self.pid:
            os.environ["TERM"] = "xterm"
            os.execvp(argv[0], argv)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
        self.seen = b""

    def type(self, text):
        os.write(self.master, text.encode())

    def expect(self, text):
        """Waits until the screen has shown a text, and forgets what came before it."""
        deadline = time.monotonic() + 20
        while text.encode() not in self.seen:
            assert time.monotonic() < deadline, f"no {text!r} in {self.seen[-900:]!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 65536)
        self.seen = self.seen.split(text.encode(), 1)[1]

    def end(self):
        """Waits until the program has ended, reading what it says; its status."""
        while True:
            try:
                if not os.read(self.master, 65536):
                    break
            except OSError:
                break
        return os.waitpid(self.pid, 0)[1]


def shell(screen, name):
    screen.expect("> ")
    screen.type(f"{name}={NONCE}\r")
    screen.expect("> ")
    screen.type("echo up-$((40+2))\r")
    screen.expect("up-42")


def ask(screen, name):
    screen.type(f"echo {name}-${name}-$((6*7))\r")
    screen.expect(f"{name}-{NONCE}-42")


def tmux():
    base = ["tmux", "-u", "-f", "/dev/null", "-S", os.path.join(DIR, "socket")]
    server = subprocess.Popen(base + ["-D"], stdin=subprocess.DEVNULL)
    while not os.path.exists(base[-1]):
        time.sleep(0.01)
    screen = Screen(*base, "new-session", *SHELL)
    shell(screen, "one")
    subprocess.run(base + ["new-window", *SHELL], check=True, env={**os.environ, "TERM": "xterm"})
    shell(screen, "two")
    hold()
    ask(screen, "two")
    subprocess.run(base + ["select-window", "-t", ":0"], check=True)
    ask(screen, "one")
    # A job in the foreground is interrupted, and the shell is not.
    screen.type("sleep 100\r")
    time.sleep(0.3)
    screen.type("\x03")
    ask(screen, "one")
    subprocess.run(base + ["kill-server"], check=True)
    screen.end()
    server.wait()


def vi():
    path = os.path.join(DIR, "text")
    screen = Screen("vi", "-u", "NONE", "-n", path)
    screen.type("ibegun ")
    screen.expect("begun")
    screen.type(NONCE)
    screen.expect(NONCE[-4:])
    hold()
    screen.type(" ended\x1b")
    time.sleep(0.2)
    screen.type(":wq\r")
    assert screen.end() == 0
    with open(path) as file:
        assert file.read() == f"begun {NONCE} ended\n"


def script():
    path = os.path.join(DIR, "typescript")
    screen = Screen("script", "-q", "-f", "-c", " ".join(f"'{word}'" for word in SHELL), path)
    shell(screen, "one")
    hold()
    ask(screen, "one")
    screen.type("exit\r")
    assert screen.end() == 0
    with open(path) as file:
        assert f"one-{NONCE}-42" in file.read()


def sqlite():
    path = os.path.join(DIR, "data.sqlite")
    screen = Screen("sqlite3", path)
    screen.expect("sqlite> ")
    screen.type("create table t (v text); begin immediate; insert into t values ('a');\r")
    screen.type(f"insert into t values ('{NONCE}'); select count(*) * 21 from t;\r")
    screen.expect("42\r\n")
    other = sqlite3.connect(path, timeout=0, isolation_level=None)

    def has_begun():
        """Others see nothing of it, and may begin none."""
        assert other.execute("select count(*) from t").fetchone() == (0,)
        try:
            other.execute("begin immediate")
        except sqlite3.OperationalError as error:
            assert "locked" in str(error), error
        else:
            raise AssertionError("no lock")

    has_begun()
    hold()
    has_begun()
    screen.type("insert into t values ('c'); commit; select count(*) * 14 from t;\r")
    screen.expect("42\r\n")
    assert other.execute("select v from t").fetchall() == [("a",), (NONCE,), ("c",)]
    screen.type(".quit\r")
    assert screen.end() == 0


run(lambda: {"tmux": tmux, "vi": vi, "script": script, "sqlite3": sqlite}[KIND]())
