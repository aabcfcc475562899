#!/usr/bin/perl
# Drives a server on a Unix socket with Cache::Memcached (Debian: libcache-memcached-perl), whose
# package carries no tests.
# usage: cache-memcached.pl SOCKET
use strict;
use warnings;
use Test::More;

my $socket = shift or die "usage: $0 SOCKET\n";
if (!eval { require Cache::Memcached; 1 }) {
    die "Cache::Memcached is not installed\n" if ($ENV{RAWCACHED_TEST_REQUIRE} // '') eq 'all';
    print "SKIPPED: Cache::Memcached is not installed\n";
    exit 0;
}
my $cache = Cache::Memcached->new({ servers => [$socket], namespace => 'perl:' });
ok($cache->flush_all, 'flush_all');

is($cache->get('a'), undef, 'a miss');
ok($cache->set('a', 'value'), 'set');
is($cache->get('a'), 'value', 'get');
ok(!$cache->add('a', 'other'), 'add of a key that is there');
ok($cache->add('b', 'added', 100), 'add');
ok($cache->replace('b', 'replaced'), 'replace');
ok(!$cache->replace('c', 'x'), 'replace of a key that is not there');
ok($cache->append('b', '>'), 'append');
ok($cache->prepend('b', '<'), 'prepend');
is_deeply($cache->get_multi(qw(a b c)), { a => 'value', b => '<replaced>' }, 'get_multi');

is_deeply($cache->get('nested'), undef, 'no nested value yet');
ok($cache->set('nested', { list => [1, 2, 3] }), 'set of a value with flags');
is_deeply($cache->get('nested'), { list => [1, 2, 3] }, 'flags come back');
my $large = join '', map { chr($_ % 256) } 0 .. 700_000;
ok($cache->set('large', $large), 'set of 700 kB');
ok($cache->get('large') eq $large, 'get of 700 kB');
ok(!$cache->set('large', 'x' x 1_100_000), 'a value over the limit is refused');
is($cache->get('large'), undef, 'and takes the old one with it');

ok($cache->set('n', 5), 'set of a number');
is($cache->incr('n'), 6, 'incr');
is($cache->incr('n', 10), 16, 'incr by 10');
is($cache->decr('n', 20), 0, 'decr stops at zero');
ok(!$cache->incr('none'), 'incr of a key that is not there');

ok($cache->delete('a'), 'delete');
ok(!$cache->delete('a'), 'delete of a key that is not there');
ok($cache->set('gone', 'x', -1), 'set of what is over already');
is($cache->get('gone'), undef, 'which is not there');
ok($cache->set('short', 'x', time + 1000), 'set with a Unix time');
is($cache->get('short'), 'x', 'which is there');
my @keys = map { "many$_" } 1 .. 2000;
$cache->set($_, $_) for @keys[0 .. 99];
is(scalar(keys %{ $cache->get_multi(@keys) }), 100, '100 of 2000 keys');

my $host = $cache->stats(['misc'])->{hosts}{$socket}{misc};
like($host->{version}, qr/^\d+\.\d+\.\d+$/, 'version of stats');
cmp_ok($host->{$_}, '>', 0, $_)
    for qw(cmd_get cmd_set get_hits get_misses curr_items total_items bytes limit_maxbytes threads);
ok($cache->flush_all, 'flush_all');
is($cache->get('b'), undef, 'everything is gone');
done_testing();
