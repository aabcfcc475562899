//! The simulated device's engine: one life of a handle. Owns the delaying of completions.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::fault::Delay;
use super::state::{Plan, State, errno};
use crate::device::engine::{Engine, Request};

/// Carries requests out as long as its generation lives.
pub(super) struct SimEngine {
    state: Arc<Mutex<State>>,
    generation: u64,
}

/// A drawn delay.
enum Wait {
    Turns(u64),
    Time(Duration),
}

impl SimEngine {
    pub(super) fn new(state: Arc<Mutex<State>>, generation: u64) -> SimEngine {
        SimEngine { state, generation }
    }
}

impl Engine for SimEngine {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn submit(&self, request: Request) {
        let (plan, wait) = {
            let mut state = self.state.lock();
            (state.admit(self.generation, &request), draw(&mut state))
        };
        let Some(plan) = plan else {
            return request.complete(Err(errno(libc::ENODEV)));
        };
        let Some(wait) = wait else {
            return finish(&self.state, self.generation, plan, request);
        };
        let (state, generation) = (Arc::clone(&self.state), self.generation);
        tokio::spawn(async move {
            match wait {
                Wait::Time(time) => tokio::time::sleep(time).await,
                Wait::Turns(turns) => {
                    for _ in 0..turns {
                        tokio::task::yield_now().await;
                    }
                }
            }
            finish(&state, generation, plan, request);
        });
    }
}

fn draw(state: &mut State) -> Option<Wait> {
    match state.delay {
        Delay::None => None,
        Delay::Yields(max) => Some(Wait::Turns(state.random.up_to(u64::from(max)))),
        Delay::Sleep(max) => {
            let max_us = u64::try_from(max.as_micros()).unwrap_or(u64::MAX);
            Some(Wait::Time(Duration::from_micros(state.random.up_to(max_us))))
        }
    }
}

fn finish(state: &Mutex<State>, generation: u64, plan: Plan, mut request: Request) {
    let result = state.lock().execute(generation, plan, &mut request);
    request.complete(result);
}
