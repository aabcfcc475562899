"""Drives a server on a Unix socket with meta-memcache. usage: meta-memcache.py SOCKET"""

import socket
import sys
import time

from meta_memcache import (
    CacheClient,
    ConnectionPool,
    Key,
    LeasePolicy,
    Miss,
    NotStored,
    RecachePolicy,
    RequestFlags,
    ServerAddress,
    SetMode,
    StalePolicy,
    Success,
    Value,
)

checks = 0


def check(what, found, expected):
    global checks
    assert found == expected, f"{what}: {found!r} in place of {expected!r}"
    checks += 1


def connect():
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(sys.argv[1])
    return connection


def pool(address):
    return ConnectionPool(str(address), connect, initial_pool_size=1, max_pool_size=3)


def client():
    servers = [ServerAddress("socket", 0)]
    return CacheClient.cache_client_from_servers(servers=servers, connection_pool_factory_fn=pool)


cache, other = client(), client()

# Plain use.
check("a miss", cache.get("a"), None)
check("set", cache.set("a", "value", ttl=100), True)
check("get", cache.get("a"), "value")
check("get of another type", cache.get_typed("a", str), "value")
check("add of what is there", cache.refill("a", "other", ttl=100), False)
check("add", cache.refill("b", 5, ttl=100), True)
check("replace", cache.set("b", 6, ttl=100, set_mode=SetMode.REPLACE), True)
check("replace of nothing", cache.set("c", 6, ttl=100, set_mode=SetMode.REPLACE), False)
check("append", cache.set("a", b">", ttl=100, set_mode=SetMode.APPEND), True)
check("prepend", cache.set("a", b"<", ttl=100, set_mode=SetMode.PREPEND), True)
check("what they made", cache.get("a"), "<value>")
check("several", cache.multi_get(["a", "b", "none"]), {Key("a"): "<value>", Key("b"): 6, Key("none"): None})
check("touch", cache.touch("a", ttl=50), True)
check("touch of nothing", cache.touch("none", ttl=50), False)
check("get and touch", cache.get("a", touch_ttl=60), "<value>")
check("a list with flags", cache.set("list", [1, {"two": 3}], ttl=100), True)
check("which comes back", cache.get("list"), [1, {"two": 3}])
check("unanswered set", cache.set("quiet", 1, ttl=100, no_reply=True), True)
check("which is there", cache.get("quiet"), 1)
check("unanswered delete", cache.delete("quiet", no_reply=True), True)
check("which took it", cache.get("quiet"), None)
check("delete", cache.delete("b"), True)
check("delete of nothing", cache.delete("b"), False)
check("invalidate nothing", cache.invalidate("b"), True)

# Keys of any bytes, and long ones, which the client hashes.
for key in ["\U0001f37a", "with a space", "k" * 500, "line\nend"]:
    check("set of a key in base64", cache.set(Key(key), key, ttl=30), True)
    check("get of it", cache.get(Key(key)), key)
check("several of them", cache.multi_get([Key("\U0001f37a"), Key("with a space")]),
      {Key("\U0001f37a"): "\U0001f37a", Key("with a space"): "with a space"})

# Large values.
large = bytes(n % 251 for n in range(900_000))
check("set of 900 kB", cache.set(Key("large", disabled_compression=True), large, ttl=100), True)
check("get of 900 kB", cache.get("large") == large, True)

# CAS values. The client knows those of 32 bits only and takes any larger one, as all are that the server makes, for
# none. So these are given by `E`.
def store_as(key, value, cas):
    with connect() as connection:
        connection.sendall(f"ms {key} {len(value)} T100 E{cas}\r\n{value}\r\n".encode())
        assert connection.recv(100) == b"HD\r\n"


store_as("cas", "1", 7)
check("the CAS value of what was stored", cache.get_cas("cas"), ("1", 7))
check("delete with another one", cache.delete("cas", cas_token=8), False)
check("set with another one", cache.set("cas", 3, ttl=100, cas_token=6), False)
check("set with it", cache.set("cas", 2, ttl=100, cas_token=7), True)
check("set with an old one", cache.set("cas", 3, ttl=100, cas_token=7), False)
check("what is there", cache.get("cas"), 2)
store_as("cas", "1", 9)
check("delete with the present one", cache.delete("cas", cas_token=9), True)

# Numbers.
check("delta of nothing", cache.delta("n", delta=1), False)
check("delta with a beginning", cache.delta_initialize_and_get("n", delta=2, initial_value=5, initial_ttl=60), 5)
check("delta", cache.delta_initialize_and_get("n", delta=2, initial_value=5, initial_ttl=60), 7)
check("delta down", cache.delta_and_get("n", delta=-3), 4)
check("delta and touch", cache.delta_and_get("n", delta=1, refresh_ttl=90), 5)
check("unanswered delta", cache.delta("n", delta=1, no_reply=True), True)
check("which counted", cache.get("n"), "6")

# One of those who miss fills.
lease = LeasePolicy(ttl=30, miss_retries=1, miss_retry_wait=0.01)
check("the winner of a miss", cache.get_or_lease("lease", lease), None)
check("who waits in vain", other.get_or_lease("lease", lease), None)
check("the winner stores", cache.set("lease", "filled", ttl=100), True)
check("who waits", other.get_or_lease("lease", lease), "filled")

# One of those who read what is about to end refreshes it.
recache = RecachePolicy(ttl=200)
check("the winner refreshes", cache.get("lease", recache_policy=recache), None)
check("the others go on", other.get("lease", recache_policy=recache), "filled")
check("it is refreshed", cache.set("lease", "again", ttl=300), True)
check("nobody else is to", other.get("lease", recache_policy=recache), "again")

# What is stale is served to all but one.
stale = StalePolicy(mark_stale_on_deletion_ttl=30, mark_stale_on_cas_mismatch=True)
store_as("lease", "again", 7)
check("marked as stale", cache.invalidate("lease", stale_policy=stale), True)
check("the winner misses", cache.get("lease"), None)
check("the others do not", other.get("lease"), "again")
check("a late store is stale", cache.set("lease", "late", ttl=300, cas_token=7, stale_policy=stale), True)
check("and given as such", other.get("lease"), "late")
check("a store without a CAS value is not", cache.set("lease", "new", ttl=300), True)
check("which all get", (cache.get("lease"), other.get("lease")), ("new", "new"))

# The commands as they are.
found = cache.meta_get(Key("lease"), flags=RequestFlags(return_value=True, return_ttl=True, return_size=True,
                                                       return_fetched=True, return_last_access=True))
check("a value", isinstance(found, Value), True)
check("its flags", (found.flags.size, found.flags.fetched, 290 <= found.flags.ttl <= 300), (3, True, True))
check("a miss", isinstance(cache.meta_get(Key("none"), flags=RequestFlags(return_value=True)), Miss), True)
check("a store", isinstance(cache.meta_set(Key("raw"), b"raw", flags=RequestFlags(cache_ttl=100)), Success), True)
check("that is not done", isinstance(cache.meta_set(Key("raw"), b"raw", flags=RequestFlags(mode=b"E"[0])), NotStored), True)
check("a delete", isinstance(cache.meta_delete(Key("raw"), flags=RequestFlags()), Success), True)

# A lifetime ends.
check("a short life", cache.set("short", 1, ttl=1), True)
deadline = time.monotonic() + 10
while cache.get("short") is not None:
    assert time.monotonic() < deadline, "it does not end"
    time.sleep(0.05)
print(f"all {checks} checks passed")
