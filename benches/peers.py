#!/usr/bin/env python3
"""Other tools at the work of a bulk emit: each event of 300 bytes durable, in bulk, by one process.

    benches/peers.py sqlite|redis FOLDER FILE [N]

FILE has the data of an event on each line; each is written as the CloudEvent that evbus would make of it, which is done
before the clock starts. SQLite writes them into a table of a file, N rows a transaction, with WAL and synchronous=FULL;
Redis appends them to a stream through one pipe, with appendfsync always. Prints `events/s=`; nothing if the program is
not there.
"""
import os, shutil, socket, sqlite3, subprocess, sys, time


def sqlite(folder, lines, each):
    base = sqlite3.connect(os.path.join(folder, "events.db"), isolation_level=None)
    base.execute("pragma journal_mode=wal")
    base.execute("pragma synchronous=full")
    base.execute("create table events (id integer primary key, event text not null)")
    begun = time.monotonic()
    for at in range(0, len(lines), each):
        base.execute("begin")
        base.executemany("insert into events (event) values (?)", ((line,) for line in lines[at:at + each]))
        base.execute("commit")
    return time.monotonic() - begun


def redis(folder, lines, _):
    if not shutil.which("redis-server"):
        return None
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    commands = os.path.join(folder, "commands")
    with open(commands, "wb") as out:
        for line in lines:
            event = line.encode()
            out.write(b"*5\r\n$4\r\nXADD\r\n$6\r\nevents\r\n$1\r\n*\r\n$1\r\ne\r\n$%d\r\n%s\r\n" % (len(event), event))
    flags = ["--port", port, "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "yes",
             "--appendfsync", "always", "--daemonize", "no"]
    server = subprocess.Popen(["redis-server", *flags], stdout=subprocess.DEVNULL)
    try:
        while subprocess.run(["redis-cli", "-p", port, "ping"], capture_output=True).stdout != b"PONG\n":
            time.sleep(0.05)
        begun = time.monotonic()
        with open(commands, "rb") as commands:
            subprocess.run(["redis-cli", "-p", port, "--pipe"], stdin=commands, stdout=subprocess.DEVNULL, check=True)
        return time.monotonic() - begun
    finally:
        server.terminate()
        server.wait()


which, folder, file = sys.argv[1:4]
EVENT = ('{"specversion":"1.0","id":"20261123T021530-7kq3f9x2m%05x","source":"//db1","type":"order.created",'
         '"time":"2026-11-23T02:15:30.123456Z","datacontenttype":"application/json","data":%s}')
with open(file) as text:
    lines = [EVENT % (n, line) for n, line in enumerate(text.read().splitlines())]
took = {"sqlite": sqlite, "redis": redis}[which](folder, lines, int(sys.argv[4]) if len(sys.argv) > 4 else 0)
if took is not None:
    print(f"{which} events/s={len(lines) / took:.0f}")
