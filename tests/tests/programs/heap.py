"""Eight busy threads, sqlite in a file and in memory, and a heap that is partly noise and partly text."""
import hashlib
import os
import sqlite3
import threading
import time

from protocol import DIR, ready, run, told_to_go

MIB = int(os.environ.get("GELID_HEAP_MIB", "64"))


class Chain(threading.Thread):
    """Hashes its own last hash, and keeps some of the links in a dictionary that grows."""

    def __init__(self, seed):
        super().__init__()
        self.seed, self.links, self.count = seed, {}, 0
        self.stop = False

    def run(self):
        link = hashlib.sha256(str(self.seed).encode()).digest()
        while not self.stop:
            link = hashlib.sha256(link).digest()
            self.count += 1
            if self.count % 64 == 0:
                self.links[self.count] = link
                time.sleep(0.0005)

    def check(self):
        link = hashlib.sha256(str(self.seed).encode()).digest()
        for count in range(1, self.count + 1):
            link = hashlib.sha256(link).digest()
            if count % 64 == 0:
                assert self.links[count] == link, f"link {count} of thread {self.seed}"


def fill(database):
    database.execute("create table t (k integer primary key, v blob)")
    with database:
        database.executemany("insert into t values (?, ?)", ((i, hashlib.sha256(str(i).encode()).digest()) for i in range(5000)))


def check(database):
    assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    for key, value in database.execute("select k, v from t"):
        assert value == hashlib.sha256(str(key).encode()).digest()
    with database:
        database.execute("insert into t values (?, ?)", (100000, hashlib.sha256(b"100000").digest()))
    assert database.execute("select count(*) from t").fetchone() == (5001,)


def main():
    heap = [os.urandom(1 << 20) if i % 4 == 0 else bytearray(f"{i} lorem ipsum ".encode() * 70000)[: 1 << 20] for i in range(MIB)]
    digest = hashlib.sha256(b"".join(heap[:32])).digest()
    sums = [hashlib.sha256(block).digest() for block in heap]
    databases = [sqlite3.connect(os.path.join(DIR, "data.sqlite")), sqlite3.connect(":memory:")]
    for database in databases:
        fill(database)
    threads = [Chain(seed) for seed in range(8)]
    for thread in threads:
        thread.start()
    ready()
    while not told_to_go():
        time.sleep(0.01)
    before = [thread.count for thread in threads]
    time.sleep(0.2)
    for thread in threads:
        thread.stop = True
    for thread, count in zip(threads, before):
        thread.join()
        assert thread.count > count, "a thread stands still"
        thread.check()
    assert digest == hashlib.sha256(b"".join(heap[:32])).digest()
    assert sums == [hashlib.sha256(block).digest() for block in heap], "heap"
    for database in databases:
        check(database)


run(main)
