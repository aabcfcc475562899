//! Shows the log of what runs inside a test, as far as `RUST_LOG` asks for it.

use tracing_subscriber::EnvFilter;

/// Sends the log to the test's output. Called by every test that runs the library itself; the
/// first call counts.
pub fn init() {
    if std::env::var_os("RUST_LOG").is_some() {
        let log = tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env());
        let _ = log.with_test_writer().try_init();
    }
}
