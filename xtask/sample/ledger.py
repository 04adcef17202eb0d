"""A program with state worth losing: what `cargo xtask dump` freezes, ends and brings back.

Eight threads keep a ledger in three places at once: in a growing dictionary, in an sqlite database and in
a log file, and hand work to each other through a queue and a pipe. The main thread sleeps in a read of a
FIFO and answers questions; a nonce that it was told lives in its memory alone. Asked, it compares
the three places with each other and with running checksums, so a lost or doubled entry is seen.
"""

import hashlib
import json
import os
import queue
import sqlite3
import sys
import threading
import time

FIRST_RECORDS = 150_000
LAST_RECORD = 2_000_000


class Ledger:
    def __init__(self, folder):
        self.lock = threading.Lock()
        self.nonce = None
        self.records = {}
        self.checksum = 0
        self.ticks = [0] * 4
        self.tasks = queue.Queue(maxsize=64)
        self.squares = 0
        self.piped = 0
        self.pipe = os.pipe()
        self.log = open(os.path.join(folder, "ledger.log"), "ab", buffering=0)
        self.logged = 0
        # Nobody else uses the file, so it goes without locks.
        database = f"file:{folder}/ledger.db?vfs=unix-none"
        self.database = sqlite3.connect(database, uri=True, check_same_thread=False)
        self.database.execute("create table ledger (number integer primary key, digest text)")
        self.index = sqlite3.connect(":memory:", check_same_thread=False)
        self.index.execute("create table seen (number integer primary key)")
        self.rows = 0
        self.add(FIRST_RECORDS)

    def add(self, count):
        with self.lock:
            for number in range(len(self.records), len(self.records) + count):
                record = f"entry {number}: {number * number} paid to account {number % 977}"
                self.records[number] = record
                self.checksum = (self.checksum + hash(record)) & 0xFFFFFFFFFFFF

    def grow(self):
        while True:
            if len(self.records) < LAST_RECORD:
                self.add(50)
            time.sleep(0.005)

    def store(self):
        while True:
            with self.lock:
                digest = hashlib.sha256(self.records[self.rows].encode()).hexdigest()
                with self.database, self.index:
                    self.database.execute("insert into ledger values (?, ?)", (self.rows, digest))
                    self.index.execute("insert into seen values (?)", (self.rows,))
                self.rows += 1
            time.sleep(0.01)

    def write(self):
        while True:
            with self.lock:
                self.log.write(b"line %d\n" % self.logged)
                self.logged += 1
            time.sleep(0.003)

    def produce(self):
        number = 0
        while True:
            self.tasks.put(number)
            number += 1

    def consume(self):
        while True:
            number = self.tasks.get()
            self.squares += number * number
            self.ticks[0] += 1
            if number % 100 == 0:
                time.sleep(0.001)

    def send(self):
        while True:
            os.write(self.pipe[1], b"%08d" % self.ticks[1])
            self.ticks[1] += 1

    def receive(self):
        while True:
            expected = self.piped
            if int(os.read(self.pipe[0], 8)) != expected:
                self.ticks[3] += 1
            self.piped += 1
            if expected % 200 == 0:
                time.sleep(0.001)

    def account(self):
        """The state, and what is wrong with it."""
        wrong = []
        with self.lock:
            total = 0
            for record in self.records.values():
                total = (total + hash(record)) & 0xFFFFFFFFFFFF
            if total != self.checksum:
                wrong.append("the records do not sum up")
            for name, connection, table in (
                ("file", self.database, "ledger"),
                ("memory", self.index, "seen"),
            ):
                (rows,) = connection.execute(f"select count(*) from {table}").fetchone()
                if rows != self.rows:
                    wrong.append(f"{rows} rows in the {name} database, {self.rows} stored")
            with open(self.log.name, "rb") as log:
                lines = log.read().splitlines()
            if lines != [b"line %d" % number for number in range(self.logged)]:
                wrong.append("the log lacks lines or has too many")
            if self.ticks[3]:
                wrong.append("the pipe lost something")
            return {
                "pid": os.getpid(),
                "threads": threading.active_count(),
                "nonce": self.nonce,
                "records": len(self.records),
                "rows": self.rows,
                "logged": self.logged,
                "piped": self.piped,
                "queued": self.ticks[0],
                "wrong": wrong,
            }


def main():
    folder = sys.argv[1]
    ledger = Ledger(folder)
    fifo = os.path.join(folder, "question")
    os.mkfifo(fifo)
    # Open for both, so that a read waits for the next question instead of ending after each.
    questions = open(os.open(fifo, os.O_RDWR), "rb", buffering=0)
    for work in (
        ledger.grow,
        ledger.store,
        ledger.write,
        ledger.produce,
        ledger.consume,
        ledger.send,
        ledger.receive,
    ):
        threading.Thread(target=work, daemon=True).start()

    def answer(value):
        path = os.path.join(folder, "answer")
        with open(path + ".new", "w") as file:
            json.dump(value, file)
        os.rename(path + ".new", path)

    answer(ledger.account())
    while True:
        command, *words = questions.readline().decode().split()
        if command == "nonce":
            ledger.nonce = words[0]
        elif command == "end":
            os._exit(0)
        answer(ledger.account())


main()
