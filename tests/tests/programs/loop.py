"""An asyncio loop: timers, a pipe, a server and clients on a Unix socket, threads that call back, a child, a signal."""
import asyncio
import os
import signal

from protocol import DIR, ready, run, told_to_go

CLIENTS = 20


class State:
    ticks = 0
    echoed = [0] * CLIENTS
    computed = 0
    signals = 0
    stop = False


async def serve(reader, writer):
    while line := await reader.readline():
        writer.write(line)
        await writer.drain()
    writer.close()


async def talk(number):
    reader, writer = await asyncio.open_unix_connection(os.path.join(DIR, "socket"))
    while not State.stop:
        text = f"{number} {State.echoed[number]}\n".encode()
        writer.write(text)
        assert await reader.readline() == text
        State.echoed[number] += 1
        await asyncio.sleep(0.005)
    writer.close()


async def compute(loop):
    while not State.stop:
        assert await loop.run_in_executor(None, sum, range(5000)) == 12497500
        State.computed += 1
        await asyncio.sleep(0.01)


async def tick():
    while not State.stop:
        State.ticks += 1
        await asyncio.sleep(0.01)


def heard():
    State.signals += 1


async def main():
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, heard)
    server = await asyncio.start_unix_server(serve, os.path.join(DIR, "socket"))
    child = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    tasks = [asyncio.create_task(talk(number)) for number in range(CLIENTS)]
    tasks += [asyncio.create_task(compute(loop)), asyncio.create_task(tick())]
    while min(State.echoed) < 3 or State.computed < 3:
        await asyncio.sleep(0.01)
    ready()
    while not told_to_go():
        await asyncio.sleep(0.01)
    before = (State.ticks, State.computed, list(State.echoed))
    os.kill(os.getpid(), signal.SIGUSR1)
    child.stdin.write(b"through the child\n")
    assert await child.stdout.readline() == b"through the child\n"
    child.stdin.close()
    assert await child.wait() == 0
    await asyncio.sleep(0.3)
    assert State.signals == 1, State.signals
    assert State.ticks > before[0] and State.computed > before[1]
    assert all(now > then for now, then in zip(State.echoed, before[2]))
    State.stop = True
    await asyncio.gather(*tasks)
    server.close()


run(lambda: asyncio.run(main()))
