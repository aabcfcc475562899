#!/usr/bin/env python3
"""Instructions and CPU time of single operations: replays the same requests to servers, one at a time.

usage: replay.py [--only TEXT] RAWCACHED [RAWCACHED ...]

Of each binary a server runs twice on a new image: under valgrind's callgrind, which counts instructions,
and by itself, for the CPU time that the kernel takes for it (user and system, of all threads, in
microseconds). `serving` are the instructions of the thread that serves the connection, in the best of
some batches: how often it parks, at 500 each, depends on when the client runs. `all` are those of all
threads, with what the store does in the background meanwhile, which depends on how long a run takes. From
the second binary on the ratio of `serving` to the first binary's is printed. Below, what hits through a
`[[proxy]]` listener cost beside those of the same objects at `/v1/objects`, which is its upstream. One worker,
one connection of memcached text and one of each listener of HTTP; I/O by threads, since valgrind knows no
io_uring. Needs valgrind and python3 only. `--only TEXT` runs operations that have it in their names.
"""

import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time

CONFIG = """
[server]
memcached = ["unix:{directory}/socket"]
http = ["unix:{directory}/http"]
admin = ""
workers = 1
socket_mode = "0600"

[[device]]
path = "{directory}/image"
io = "direct"
engine = "threads"

[[proxy]]
name = "proxy"
listen = ["unix:{directory}/proxy"]
upstream = "unix:{directory}/back"

[ram]
size = "4MiB"

[store]
scrub_rate = "0"
"""

# Settings of rawcached come from the environment too, and it takes no others of that name.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("RAWCACHED_")}
# Entries that the RAM tier has room for, and entries that it has not.
SMALL, LARGE, FEW, MANY, PAGES = 100, 4000, 500, 8000, 100
PAGE, LONG, LONGS = 4 << 10, 64 << 10, 5
THROUGH_PROXY = "the same through [[proxy]]"
COUNTED, BATCHES, TIMED = 1000, 5, 20000


def key(kind, number):
    return b"%s-%06d" % (kind, number)


class Client:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb", 1 << 16)

    def set(self, name, length):
        body = name * (length // len(name) + 1)
        self.socket.sendall(b"set %s 0 0 %d\r\n%s\r\n" % (name, length, body[:length]))
        answer = self.file.readline()
        assert answer == b"STORED\r\n", answer

    def get(self, names, expected):
        self.socket.sendall(b"get " + b" ".join(names) + b"\r\n")
        found = 0
        while (line := self.file.readline()) != b"END\r\n":
            assert line.startswith(b"VALUE "), line
            self.file.read(int(line.split()[3]) + 2)
            found += 1
        assert found == expected, (found, expected)

    def delete(self, name, expected):
        self.socket.sendall(b"delete %s\r\n" % name)
        answer = self.file.readline()
        assert answer == expected, answer


class HttpClient:
    # What a proxy passes on of a browser's request.
    HEADERS = (
        b"Host: www.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0)\r\n"
        b"Accept: text/html,application/xhtml+xml\r\nAccept-Language: en\r\nAccept-Encoding: gzip, br\r\n\r\n"
    )
    # What an origin says of a file.
    KEPT = (
        b"Content-Type: text/html; charset=utf-8\r\nCache-Control: public, max-age=86400\r\n"
        b'ETag: "5f2b-61e8c2a7"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n'
    )

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.file = self.socket.makefile("rb", 1 << 16)

    def ask(self, request, status):
        self.socket.sendall(request)
        answer = self.file.readline()
        assert answer.split()[1] == status, answer
        length = 0
        while (line := self.file.readline()) != b"\r\n":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        self.file.read(length)

    def get(self, name, status=b"200", headers=HEADERS):
        self.ask(b"GET /v1/objects/%s HTTP/1.1\r\n%s" % (name, headers), status)

    def put(self, name, length):
        head = b"PUT /v1/objects/%s HTTP/1.1\r\nContent-Length: %d\r\n%s%s" % (name, length, self.KEPT, self.HEADERS)
        self.ask(head + b"x" * length, b"201")


def operations(client, http, proxy):
    """Names of operations, and what does the n-th of each."""
    order = random.Random(7)
    return {
        "get, hit in RAM, 100 B": lambda n: client.get([key(b"few", n % FEW)], 1),
        "get, miss": lambda n: client.get([key(b"none", n)], 0),
        "get, hit on the device, 4 KB": lambda n: client.get([key(b"many", order.randrange(MANY))], 1),
        "get of 20 keys, hits in RAM": lambda n: client.get([key(b"few", (n + i) % FEW) for i in range(20)], 20),
        "set, new, 100 B": lambda n: client.set(key(b"new", n), SMALL),
        "set, over another, 100 B": lambda n: client.set(key(b"few", n % FEW), SMALL),
        "set, new, 4 KB": lambda n: client.set(key(b"large", n), LARGE),
        "delete, hit": lambda n: client.delete(key(b"new", n), b"DELETED\r\n"),
        "delete, miss": lambda n: client.delete(key(b"none", n), b"NOT_FOUND\r\n"),
        "HTTP GET, hit in RAM, 100 B": lambda n: http.get(key(b"few", n % FEW)),
        "HTTP GET, the same, few headers": lambda n: http.get(key(b"few", n % FEW), headers=b"Host: x\r\n\r\n"),
        "HTTP GET, hit in RAM, 4 KiB": lambda n: http.get(key(b"page", n % PAGES)),
        THROUGH_PROXY + ", 4 KiB": lambda n: proxy.get(key(b"page", n % PAGES)),
        "HTTP GET, hit in RAM, 64 KiB": lambda n: http.get(key(b"long", n % LONGS)),
        THROUGH_PROXY + ", 64 KiB": lambda n: proxy.get(key(b"long", n % LONGS)),
        "HTTP GET, miss": lambda n: http.get(key(b"none", n), b"404"),
        "HTTP PUT, new, 4 KB": lambda n: http.put(key(b"put", n), LARGE),
    }


class Server:
    def __init__(self, binary, directory, counted):
        self.directory = directory
        config = os.path.join(directory, "config")
        with open(config, "w", encoding="utf-8") as file:
            file.write(CONFIG.format(directory=directory))
        # The objects by another name: a listener does not ask its own daemon.
        os.symlink("http", os.path.join(directory, "back"))
        image = os.path.join(directory, "image")
        with open(image, "wb") as file:
            file.truncate(512 << 20)
        subprocess.run([binary, "format", image, "--yes"], check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
        command = [binary, "serve", "--config", config]
        if counted:
            out = "--callgrind-out-file=" + os.path.join(directory, "counts")
            command = ["valgrind", "-q", "--tool=callgrind", "--separate-threads=yes", out, *command]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, env=ENVIRONMENT, **quiet)
        for _ in range(600):
            try:
                self.client = Client(os.path.join(directory, "socket"))
                self.http = HttpClient(os.path.join(directory, "http"))
                self.proxy = HttpClient(os.path.join(directory, "proxy"))
                break
            except OSError:
                assert self.process.poll() is None, "the server ended"
                time.sleep(0.1)

    def instructions(self):
        """Instructions of each thread since the last call."""
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        for action in ("--dump=step", "--zero"):
            subprocess.run(["callgrind_control", action, str(self.process.pid)], check=True, **quiet)
        dumps = {}
        for name in os.listdir(self.directory):
            if match := re.fullmatch(r"counts\.(\d+)-(\d+)", name):
                dumps.setdefault(int(match[1]), {})[int(match[2])] = os.path.join(self.directory, name)
        counts = {}
        for thread, path in dumps[max(dumps)].items():
            with open(path, encoding="utf-8") as file:
                total = next((line for line in file if line.startswith(("totals:", "summary:"))), "totals: 0")
            counts[thread] = int(total.split()[1])
        return counts

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat", encoding="utf-8") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.kill()
        self.process.wait()


def replay(binary, counted, only):
    """Instructions, or microseconds of CPU time, for one of each operation."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("RAWCACHED_BENCH_DIR")) as directory:
        server = Server(binary, directory, counted)
        count, meter = (COUNTED, server.instructions) if counted else (TIMED, server.cpu_seconds)
        try:
            for kind, number, length in ((b"many", MANY, LARGE), (b"few", FEW, SMALL)):
                for n in range(number):
                    server.client.set(key(kind, n), length)
            for n in range(PAGES):
                server.http.put(key(b"page", n), PAGE)
            for n in range(LONGS):
                server.http.put(key(b"long", n), LONG)
            time.sleep(2)
            found = {}
            first = operations(server.client, server.http, server.proxy)
            chosen = {name: does for name, does in first.items() if only in name or name == next(iter(first))}
            for name, operation in chosen.items():
                # So that what is needed once is there, and entries are in RAM.
                if not name.startswith("delete"):
                    for n in range(FEW):
                        operation(n)
                readings = [meter()]
                for batch in range(BATCHES if counted else 1):
                    for n in range(batch * count, (batch + 1) * count):
                        operation(n)
                    readings.append(meter())
                found[name] = readings[1:] if counted else (readings[1] - readings[0]) / count * 1e6
            if counted:
                # Of hits in RAM it does all.
                first = next(iter(found.values()))[0]
                serving = max(first, key=first.get)
                for name, batches in found.items():
                    best = min(batches, key=lambda counts: counts.get(serving, 0))
                    found[name] = (best.get(serving, 0) / count, sum(best.values()) / count)
            return found
        finally:
            server.stop()


def main():
    binaries, only = sys.argv[1:], ""
    if binaries[:1] == ["--only"]:
        only, binaries = binaries[1], binaries[2:]
    if not binaries:
        sys.exit(__doc__)
    results = [(replay(binary, True, only), replay(binary, False, only)) for binary in binaries]
    print(f"{'operation':34}" + "".join(f"{'serving':>10}{'ratio':>8}{'all':>9}{'CPU us':>8}" for _ in binaries))
    for name, (first, _) in results[0][0].items():
        cells = []
        for counts, times in results:
            serving, all_threads = counts[name]
            cells.append(f"{serving:10.0f}{serving / first:8.3f}{all_threads:9.0f}{times[name]:8.1f}")
        print(f"{name:34}" + "".join(cells))
    for size in ("4 KiB", "64 KiB"):
        names = [f"HTTP GET, hit in RAM, {size}", f"{THROUGH_PROXY}, {size}"]
        for counts, times in results:
            if all(name in counts for name in names):
                instructions, time = (
                    found[names[1]] / found[names[0]]
                    for found in ({name: serving for name, (serving, _) in counts.items()}, times)
                )
                print(f"[[proxy]] beside /v1/objects, {size}: instructions {instructions:.2f}, CPU time {time:.2f}")


main()
