//! Goal: a stock proxy and the daemon are a whole cache with the recipe for that proxy, and the site goes on
//! when the daemon dies. Method: Debian's proxies, the recipes of `docs/recipes.md` word for word, the built
//! daemon between front and back, a strict origin that keeps what it is asked, strict clients.

mod cases;
mod load;
mod recipe;
mod settings;
mod site;

// The strict ends of the read-through listener's own tests.
#[allow(dead_code, reason = "other tests use all of it")]
#[path = "../../server/proxy/client.rs"]
mod client;
#[allow(dead_code, reason = "other tests use all of it")]
#[path = "../../server/proxy/origin.rs"]
mod origin;
#[allow(dead_code, reason = "other tests use all of it")]
#[path = "../../server/proxy/reply.rs"]
mod reply;
#[allow(dead_code, reason = "other tests use all of it")]
#[path = "../../server/proxy/verdict.rs"]
mod verdict;
#[allow(dead_code, reason = "other tests use all of it")]
#[path = "../../server/proxy/wire.rs"]
mod wire;

macro_rules! each_case {
    ($proxy:ident $($case:ident)*) => {
        $(#[test]
        fn $case() {
            cases::$case(Proxy::$proxy);
        })*
    };
}

/// Each case with each proxy, such as `proxies::nginx::a_dead_origin...`.
macro_rules! each_proxy {
    ($($module:ident $proxy:ident)*) => {$(
        mod $module {
            use super::cases;
            use super::recipe::Proxy;

            each_case!($proxy
                what_is_stored_is_hit_in_parts_and_by_validators
                a_purge_makes_the_next_a_miss
                a_dead_origin_is_stood_in_for
                the_site_goes_on_without_the_daemon_and_hits_go_on_with_it
                a_kill_before_the_answer_sends_no_post_again
                a_kill_in_mid_fill_cuts_a_body_and_nothing_looks_whole
                a_body_that_breaks_off_at_the_origin_is_not_stored
                a_post_comes_to_the_origin_once
                who_is_denied_gets_no_hit
                what_clients_say_of_themselves_is_overwritten
                connections_are_kept
            );
        }
    )*};
}

each_proxy! {
    nginx Nginx
    haproxy Haproxy
    caddy Caddy
    apache Apache
    varnish Varnish
}
