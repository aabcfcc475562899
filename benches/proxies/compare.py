#!/usr/bin/env python3
"""CPU time of HTTP caches for the same list of requests: a `[[proxy]]` listener beside nginx and Varnish.

usage: compare.py [--quick] [--only TEXT] [--rounds N] [--memory SIZE] RAWCACHED

The caches run with the configurations of this folder in front of one origin, all on core 1; client (`rawcached
bench load`, 32 connections, as fast as answers come) and origin on core 0. Each cache may use `--memory` (1GiB,
a memory cgroup, its page cache included; `none` for no limit). Of each kind of load the same requests are made
of all, first of empty caches (cold), then once more, and then in turns, `--rounds` (3) times: these are hits, and
what the origin was asked meanwhile is printed. Every byte of every answer is compared with what was stored. CPU
time is that of all processes of the cache, from the kernel. Loads: bodies of 4 KiB and of 64 KiB, which fit in
memory, and the mix of a content delivery network, which does not. `--quick` makes a tenth of the requests;
`--only` runs the loads that have this in their names. Needs python3, nginx (1.22), varnishd (7.1), two cores,
root for the cgroups, 40 GB in RAWCACHED_BENCH_DIR, and the ports 18370 to 18390 of this host.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

# Settings of rawcached come from the environment too, and it takes no others of that name.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("RAWCACHED_")}
HERE = os.path.dirname(os.path.abspath(__file__))
CLIENT_CORE, CACHE_CORE = "0", "1"
ORIGIN, ORIGIN_METRICS = "127.0.0.1:18370", "127.0.0.1:18371"
# What Varnish logs of a request. The others log nothing.
VARNISH_SILENT = ",".join(
    "-" + tag
    for tag in "Begin End Link ReqStart ReqMethod ReqURL ReqProtocol ReqHeader ReqUnset ReqAcct RespProtocol "
    "RespStatus RespReason RespHeader RespUnset VCL_call VCL_return VCL_use Hit Timestamp Storage Length "
    "BereqMethod BereqURL BereqProtocol BereqHeader BereqUnset BereqAcct BerespProtocol BerespStatus BerespReason "
    "BerespHeader BerespUnset BackendOpen BackendReuse BackendClose TTL Fetch_Body SessOpen SessClose".split()
)
# What each cache is: a name of a folder, and its processes in the order of their start, RAWCACHED being the binary.
CACHES = {
    "rawcached": [["RAWCACHED", "serve", "--config", f"{HERE}/rawcached.toml"]],
    "nginx": [["nginx", "-p", ".", "-c", f"{HERE}/nginx.conf"]],
    "varnish": [
        ["varnishd", "-F", "-j", "none", "-a", "127.0.0.1:18390", "-n", "work", "-f", f"{HERE}/varnish.vcl"]
        + ["-s", "file,storage,8G", "-p", "thread_pools=1", "-p", f"vsl_mask={VARNISH_SILENT}"]
    ],
    "both": [
        ["RAWCACHED", "serve", "--config", f"{HERE}/behind-nginx.toml"],
        ["nginx", "-p", ".", "-c", f"{HERE}/nginx-rawcached.conf"],
    ],
}
# Rows: what is asked, in which cache, where. A row after the first of a cache finds it filled.
OURS, OBJECTS, STACK = "rawcached [[proxy]]", "rawcached /v1/objects", "nginx and rawcached"
NGINX = ["nginx proxy_cache", "nginx, aio threads"]
ROWS = {
    OURS: ("rawcached", "127.0.0.1:18373"),
    OURS + ", Unix socket": ("rawcached", "unix:proxy.sock"),
    OBJECTS: ("rawcached", "127.0.0.1:18372"),
    NGINX[0]: ("nginx", "127.0.0.1:18380"),
    NGINX[1]: ("nginx", "127.0.0.1:18381"),
    "Varnish, file": ("varnish", "127.0.0.1:18390"),
    STACK: ("both", "127.0.0.1:18382"),
}
# Requests of each kind, and what they are for `rawcached bench load`. Objects of the mix are at the origin only: of
# a second copy in the same memory nothing would be learnt.
LOADS = {
    "4 KiB": (50000, ["--keys", "2000", "--size", "4KiB", "--prefix", "page-"]),
    "64 KiB": (50000, ["--keys", "2000", "--size", "64KiB", "--prefix", "long-"]),
    "mix": (
        200000,
        ["--keys", "100000", "--zipf", "0.9", "--prefix", "mix-"]
        + ["--size", "lognormal:median=16KiB,sigma=1.6,min=200,max=8MiB"],
    ),
}
WITH_OBJECTS = ["4 KiB", "64 KiB"]
# What a browser sends and an origin says of a file.
ASKED = [
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0)",
    "Accept: text/html,application/xhtml+xml",
    "Accept-Language: en",
    "Accept-Encoding: gzip, br",
]
STORED = [
    "Content-Type: text/html; charset=utf-8",
    'ETag: "5f2b-61e8c2a7"',
    "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT",
]


class Cgroup:
    """A limit for the memory of processes, of version 1 or 2 of cgroups."""

    def __init__(self, name, limit):
        root = "/sys/fs/cgroup/memory" if os.path.isdir("/sys/fs/cgroup/memory") else "/sys/fs/cgroup"
        self.path = os.path.join(root, f"rawcached-bench-{name}-{os.getpid()}")
        os.mkdir(self.path)
        file = "memory.limit_in_bytes" if root.endswith("memory") else "memory.max"
        with open(os.path.join(self.path, file), "w", encoding="ascii") as out:
            out.write(limit)

    def enter(self):
        with open(os.path.join(self.path, "cgroup.procs"), "w", encoding="ascii") as out:
            out.write(str(os.getpid()))

    def remove(self):
        for _ in range(100):
            try:
                return os.rmdir(self.path)
            except OSError:
                time.sleep(0.1)


class Cache:
    """The processes of one cache, in a folder of their own."""

    def __init__(self, name, commands, directory, core, memory=None):
        self.directory = os.path.join(directory, name)
        os.mkdir(self.directory)
        self.cgroup = Cgroup(name, memory) if memory else None
        self.processes = []
        for command in commands:
            log = open(os.path.join(self.directory, "log"), "ab")
            process = subprocess.Popen(
                ["taskset", "-c", core, *command],
                cwd=self.directory,
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=self.cgroup.enter if self.cgroup else None,
            )
            self.processes.append(process)
            if name == "both":
                time.sleep(1)

    def address(self, address):
        return address.replace("unix:", f"unix:{self.directory}/")

    def wait_for(self, address):
        for _ in range(300):
            for process in self.processes:
                if process.poll() is not None:
                    with open(os.path.join(self.directory, "log"), encoding="utf-8") as log:
                        sys.exit(f"{process.args} ended:\n{log.read()}")
            try:
                host, port = address.split(":")
                return socket.create_connection((host, int(port))).close()
            except OSError:
                time.sleep(0.1)
        sys.exit(f"nobody listens on {address}")

    def cpu_seconds(self):
        """User and system time of these processes and of their children."""
        parents, times = {}, {}
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(pid)], times[int(pid)] = int(fields[1]), (int(fields[11]), int(fields[12]))
        found = {process.pid for process in self.processes}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        ticks = os.sysconf("SC_CLK_TCK")
        return [sum(times[pid][kind] for pid in found) / ticks for kind in (0, 1)]

    def stop(self):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self.cgroup:
            self.cgroup.remove()


class Client:
    def __init__(self, binary, operations):
        self.binary, self.operations = binary, str(operations)

    def run(self, address, load, fields, more):
        command = ["taskset", "-c", CLIENT_CORE, self.binary, "bench", "load", "--http", address, "--json"]
        command += load + [text for field in fields for text in ("--header", field)] + more
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        if done.returncode:
            sys.exit(f"{address}: {done.stderr.decode()}")
        return json.loads(done.stdout)["sections"][-1]["servers"][0]["rounds"][0]

    def fill(self, address, load):
        self.run(address, load, STORED, ["--fill", "--ttl", "1d", "--operations", "1"])

    def measure(self, cache, address, load):
        """What the list of requests costs this cache."""
        before, asked = cache.cpu_seconds(), asked_of_origin()
        found = self.run(cache.address(address), load, ASKED, ["--operations", self.operations])
        user, system = (after - earlier for earlier, after in zip(before, cache.cpu_seconds()))
        count = found["operations"]
        return {
            "per_cpu_second": count / (user + system),
            "cpu_us": (user + system) / count * 1e6,
            "user_us": user / count * 1e6,
            "per_second": found["operations_per_s"],
            "megabytes": found["megabytes_per_s"],
            "p99_us": found["get_p99_us"],
            "client": found["client_cpu_cores"],
            "asked": (asked_of_origin() - asked) / count,
        }


def asked_of_origin():
    """Requests that the origin has answered so far."""
    with urllib.request.urlopen(f"http://{ORIGIN_METRICS}/metrics") as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith('rawcached_http_requests_total{method="get"'))


def table(title, ours, rows):
    """Prints the median of each figure, and of the ratios of the rounds."""
    print(f"\n{title}\n{'':34}{'req/CPU s':>10}{'ours to it':>11}{'CPU us':>8}{'user':>7}{'req/s':>8}{'MB/s':>7}", end="")
    print(f"{'p99 us':>8}{'client':>7}{'origin':>8}")
    for name, rounds in rows.items():
        middle = {figure: statistics.median(found[figure] for found in rounds) for figure in rounds[0]}
        ratios = [mine["per_cpu_second"] / its["per_cpu_second"] for mine, its in zip(ours, rounds)]
        print(
            f"{name:34}{middle['per_cpu_second']:10.0f}{statistics.median(ratios):11.2f}{middle['cpu_us']:8.1f}"
            f"{middle['user_us']:7.1f}{middle['per_second']:8.0f}{middle['megabytes']:7.0f}{middle['p99_us']:8.0f}"
            f"{middle['client']:7.2f}{middle['asked']:8.4f}",
            flush=True,
        )


def compare(binary, caches, name, arguments):
    operations, load = LOADS[name]
    client = Client(binary, operations // 10 if arguments.quick else operations)
    rounds = arguments.rounds
    client.fill(ORIGIN, load)
    rows = {row: place for row, place in ROWS.items() if row != OBJECTS or name in WITH_OBJECTS}
    if OBJECTS in rows:
        client.fill(ROWS[OBJECTS][1], load)
    cold, hits, seen = {}, {row: [] for row in rows}, set()
    for row, (cache, address) in rows.items():
        if cache not in seen:
            cold[row] = [client.measure(caches[cache], address, load)]
            client.measure(caches[cache], address, load)
            seen.add(cache)
    table(f"{name}: {client.operations} requests to empty caches", cold[OURS], cold)
    for _ in range(rounds):
        for row, (cache, address) in rows.items():
            hits[row].append(client.measure(caches[cache], address, load))
    table(f"{name}: the same once more, in {rounds} rounds", hits[OURS], hits)
    for other in NGINX:
        ratios = [mine["per_cpu_second"] / its["per_cpu_second"] for mine, its in zip(hits[STACK], hits[other])]
        print(f"{STACK} beside {other}: {statistics.median(ratios):.2f} of its requests per CPU second")
    if OBJECTS in rows:
        ratios = [mine["cpu_us"] / its["cpu_us"] for mine, its in zip(hits[OURS], hits[OBJECTS])]
        print(f"{OURS} beside /v1/objects: {statistics.median(ratios):.2f} of its CPU time")


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", default="1GiB")
    parser.add_argument("binary")
    arguments = parser.parse_args()
    binary = os.path.abspath(arguments.binary)
    memory = None if arguments.memory == "none" else str(int(arguments.memory.removesuffix("GiB")) << 30)
    for program in ("nginx", "varnishd", "taskset"):
        if not shutil.which(program):
            sys.exit(f"{program} is not installed")
    # So that nothing is left running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by a signal"))
    running = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("RAWCACHED_BENCH_DIR")) as directory:
        # Workers of nginx may have a user of their own.
        os.chmod(directory, 0o755)
        try:
            origin = [[binary, "serve", "--config", f"{HERE}/origin.toml"]]
            running.append(Cache("origin", origin, directory, CLIENT_CORE))
            running[0].wait_for(ORIGIN)
            caches = {}
            for name, commands in CACHES.items():
                commands = [[binary if word == "RAWCACHED" else word for word in command] for command in commands]
                caches[name] = Cache(name, commands, directory, CACHE_CORE, memory)
                running.append(caches[name])
            for cache, address in ROWS.values():
                if not address.startswith("unix:"):
                    caches[cache].wait_for(address)
            for name in LOADS:
                if arguments.only in name:
                    compare(binary, caches, name, arguments)
        finally:
            for cache in reversed(running):
                cache.stop()


main()
