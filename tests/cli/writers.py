"""Writes files into a folder as programs do, each by another habit, and pauses in between. Every file ends in END."""

import mmap
import os
import subprocess
import sys
import time

inbox, elsewhere, pause = sys.argv[1], sys.argv[2], float(sys.argv[3])
BODY = b"x" * 50_000 + b"END"


def open_write_close(path):
    with open(path, "wb") as file:
        file.write(BODY[:10])
        file.flush()
        time.sleep(pause)
        file.write(BODY[10:])


def rename_in(path):
    temporary = os.path.join(elsewhere, os.path.basename(path))
    open_write_close(temporary)
    os.rename(temporary, path)


def hidden_then_renamed(path):
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.Xa1")
    open_write_close(temporary)
    os.rename(temporary, path)


def part_then_linked(path):
    open_write_close(path + ".part")
    os.link(path + ".part", path)
    os.unlink(path + ".part")


def appended_with_pauses(path):
    with open(path, "ab", buffering=0) as file:
        for at in range(0, len(BODY), 20_000):
            file.write(BODY[at : at + 20_000])
            time.sleep(pause)


def truncated_first(path):
    with open(path, "wb", buffering=0) as file:
        file.truncate(len(BODY))
        time.sleep(pause)
        file.write(BODY[:100])
        time.sleep(pause)
        file.write(BODY[100:])


def mapped(path):
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(descriptor, len(BODY))
    memory = mmap.mmap(descriptor, len(BODY))
    os.close(descriptor)
    memory[:100] = BODY[:100]
    memory.flush()
    time.sleep(pause)
    memory[100:] = BODY[100:]
    memory.close()


def source_of(path):
    source = os.path.join(elsewhere, os.path.basename(path))
    with open(source, "wb") as file:
        file.write(b"\0" * 3_000_000 + BODY)
    os.utime(source, (1_000_000_000, 1_000_000_000))
    return source


def rsynced(path):
    subprocess.run(["rsync", "-t", source_of(path), path], check=True)


def rsynced_in_place(path):
    subprocess.run(["rsync", "-t", "--inplace", source_of(path), path], check=True)


def copied(path):
    subprocess.run(["cp", "-p", source_of(path), path], check=True)


def copied_sparse(path):
    subprocess.run(["cp", "--sparse=always", source_of(path), path], check=True)


HABITS = [
    open_write_close,
    rename_in,
    hidden_then_renamed,
    part_then_linked,
    appended_with_pauses,
    truncated_first,
    mapped,
    rsynced,
    rsynced_in_place,
    copied,
    copied_sparse,
]

for round in range(int(sys.argv[4])):
    for habit in HABITS:
        path = os.path.join(inbox, f"{habit.__name__}-{round}")
        habit(path)
        # Some are read or looked at while they lie there; that is no other version.
        with open(path, "rb") as file:
            assert file.read().endswith(b"END"), path
        os.chmod(path, 0o600)
        print(os.path.basename(path), flush=True)
