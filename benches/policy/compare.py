"""Miss ratios of well-known policies on a trace, from the simulator libcachesim (on PyPI).

    compare.py TRACE BYTES [BYTES ...]

TRACE is what the benchmark "policy" writes: lines of time,key,size,ttl under a line of titles.
Sizes of caches are in bytes of object bodies; nothing is counted for metadata. Prints a JSON list
of {"policy", "bytes", "miss", "byte_miss"}.
"""

import csv
import json
import sys

import libcachesim

POLICIES = {
    "LRU": libcachesim.LRU,
    "Sieve": libcachesim.Sieve,
    "S3-FIFO": libcachesim.S3FIFO,
}


def read_trace(path):
    requests = []
    with open(path, newline="") as lines:
        for line in csv.DictReader(lines):
            request = libcachesim.Request()
            request.obj_id = int(line["key"])
            request.obj_size = int(line["size"])
            requests.append((request, int(line["time"]), int(line["ttl"])))
    return requests


def replay(cache, requests):
    """The shares of requests and of bytes that miss. The simulator keeps expired objects: they are
    taken out before they are asked for, so that they are misses as in a real cache."""
    ends = {}
    misses = miss_bytes = total_bytes = 0
    for request, now, ttl in requests:
        key, size = request.obj_id, request.obj_size
        if ends.get(key, now + 1) <= now:
            cache.remove(key)
        total_bytes += size
        if not cache.get(request):
            misses += 1
            miss_bytes += size
            ends[key] = now + ttl
    return misses / len(requests), miss_bytes / total_bytes


def main():
    requests = read_trace(sys.argv[1])
    rows = []
    for size in map(int, sys.argv[2:]):
        for name, policy in POLICIES.items():
            miss, byte_miss = replay(policy(size), requests)
            rows.append({"policy": name, "bytes": size, "miss": miss, "byte_miss": byte_miss})
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    main()
