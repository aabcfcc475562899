<?php
// Drives a server on a Unix socket with php-memcached in the text protocol (Debian: php-memcached), whose
// package carries no tests.
// usage: php php-memcached.php SOCKET

declare(strict_types=1);

if (!extension_loaded('memcached')) {
    if (getenv('RAWCACHED_TEST_REQUIRE') === 'all') {
        fwrite(STDERR, "php-memcached is not loaded\n");
        exit(1);
    }
    echo "SKIPPED: php-memcached is not loaded\n";
    exit(0);
}

$checks = 0;

function check(mixed $found, mixed $expected, string $what): void
{
    global $checks;
    $checks++;
    if ($found !== $expected) {
        fwrite(STDERR, "not ok - $what: " . var_export($found, true) . "\n");
        exit(1);
    }
    echo "ok $checks - $what\n";
}

$cache = new Memcached();
$cache->setOption(Memcached::OPT_BINARY_PROTOCOL, false);
$cache->setOption(Memcached::OPT_COMPRESSION, false);
$cache->addServer($argv[1], 0);
check($cache->flush(), true, 'flush');

check($cache->get('a'), false, 'a miss');
check($cache->getResultCode(), Memcached::RES_NOTFOUND, 'is not found');
check($cache->set('a', 'value'), true, 'set');
check($cache->get('a'), 'value', 'get');
check($cache->add('a', 'x'), false, 'add of a key that is there');
check($cache->getResultCode(), Memcached::RES_NOTSTORED, 'is not stored');
check($cache->add('b', 'added', 100), true, 'add');
check($cache->replace('b', 'replaced'), true, 'replace');
check($cache->replace('c', 'x'), false, 'replace of a key that is not there');
check($cache->append('b', '>'), true, 'append');
check($cache->prepend('b', '<'), true, 'prepend');
check($cache->getMulti(['a', 'b', 'c']), ['a' => 'value', 'b' => '<replaced>'], 'getMulti');
check($cache->setMulti(['x' => 1, 'y' => 2.5, 'z' => [true, null]]), true, 'setMulti');
check($cache->get('z'), [true, null], 'flags come back');
check($cache->get('y'), 2.5, 'of every type');

$found = $cache->get('a', null, Memcached::GET_EXTENDED);
check($cache->cas($found['cas'], 'a', 'changed'), true, 'cas');
check($cache->cas($found['cas'], 'a', 'again'), false, 'cas with the old unique');
check($cache->getResultCode(), Memcached::RES_DATA_EXISTS, 'finds another value');
check($cache->get('a'), 'changed', 'and leaves it');

check($cache->set('n', 5), true, 'set of a number');
check($cache->increment('n'), 6, 'increment');
check($cache->increment('n', 10), 16, 'increment by 10');
check($cache->decrement('n', 20), 0, 'decrement stops at zero');
check($cache->increment('none'), false, 'increment of a key that is not there');

check($cache->touch('a', 1000), true, 'touch');
check($cache->touch('none', 1000), false, 'touch of a key that is not there');
check($cache->set('gone', 'x', -1), true, 'set of what is over already');
check($cache->get('gone'), false, 'which is not there');
check($cache->delete('a'), true, 'delete');
check($cache->delete('a'), false, 'delete of a key that is not there');
check($cache->deleteMulti(['x', 'none']), ['x' => true, 'none' => Memcached::RES_NOTFOUND], 'deleteMulti');

$large = random_bytes(700_000);
check($cache->set('large', $large), true, 'set of 700 kB');
check($cache->get('large') === $large, true, 'get of 700 kB');
check($cache->set('large', str_repeat('x', 1_100_000)), false, 'a value over the limit is refused');
check($cache->get('large'), false, 'and takes the old one with it');

$cache->setOption(Memcached::OPT_NOREPLY, true);
check($cache->set('quiet', 'x'), true, 'set with noreply');
$cache->setOption(Memcached::OPT_NOREPLY, false);
check($cache->get('quiet'), 'x', 'which is there');
$keys = array_map(fn (int $n): string => "many$n", range(1, 2000));
check($cache->setMulti(array_fill_keys(array_slice($keys, 0, 100), 1)), true, '100 keys');
check(count($cache->getMulti($keys)), 100, 'of 2000');

$versions = array_values($cache->getVersion());
check(preg_match('/^\d+\.\d+\.\d+$/', $versions[0]), 1, "version $versions[0]");
$stats = array_values($cache->getStats())[0];
foreach (['pid', 'uptime', 'threads', 'curr_items', 'total_items', 'limit_maxbytes', 'curr_connections',
    'total_connections', 'bytes', 'cmd_get', 'cmd_set', 'get_hits', 'get_misses'] as $name) {
    check(isset($stats[$name]) && $stats[$name] >= 0, true, "$name is " . ($stats[$name] ?? 'missing'));
}
check($cache->flush(), true, 'flush');
check($cache->get('b'), false, 'everything is gone');
echo "all $checks checks passed\n";
