//! The simulated device's engine, one for each open. Owns the delaying of completions.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;

use super::fault::Delay;
use super::state::{Plan, State, errno};
use crate::device::engine::Engine;
use crate::device::request::Request;

/// Carries requests out until the device is opened again, killed or without power.
pub(super) struct SimEngine {
    state: Arc<Mutex<State>>,
    generation: u64,
}

/// One part of a drawn delay.
#[derive(Clone, Copy)]
enum Pause {
    None,
    Turns(u64),
    Time(Duration),
}

/// A drawn delay: until the operation takes effect, and from then until it completes.
#[derive(Clone, Copy)]
struct Wait {
    before: Pause,
    after: Pause,
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
            if state.is_frozen() {
                return state.stall(request);
            }
            (state.admit(self.generation, &request), draw(&mut state))
        };
        let Some(plan) = plan else {
            return request.complete(Err(errno(libc::ENODEV)));
        };
        let (state, generation) = (Arc::clone(&self.state), self.generation);
        let carried_out = carry_out(state, generation, (plan, wait), request);
        if matches!((wait.before, wait.after), (Pause::None, Pause::None)) {
            carried_out.now_or_never();
        } else {
            tokio::spawn(carried_out);
        }
    }
}

async fn carry_out(
    state: Arc<Mutex<State>>,
    generation: u64,
    (plan, wait): (Plan, Wait),
    mut request: Request,
) {
    pass(wait.before).await;
    let result = {
        let mut state = state.lock();
        if state.is_frozen() {
            return state.stall(request);
        }
        state.execute(generation, &plan, &mut request)
    };
    pass(wait.after).await;
    {
        let mut state = state.lock();
        if state.is_frozen() {
            return state.stall(request);
        }
        state.complete(generation, &plan);
    }
    request.complete(result);
}

async fn pass(pause: Pause) {
    match pause {
        Pause::None => {}
        Pause::Time(time) => tokio::time::sleep(time).await,
        Pause::Turns(turns) => {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
        }
    }
}

fn draw(state: &mut State) -> Wait {
    let random = &mut state.random;
    match state.delay {
        Delay::None => Wait { before: Pause::None, after: Pause::None },
        Delay::Yields(max) => {
            Wait { before: Pause::Turns(random.up_to(u64::from(max))), after: Pause::None }
        }
        Delay::Sleep(max) => {
            let max_us = u64::try_from(max.as_micros()).unwrap_or(u64::MAX);
            let time = Duration::from_micros(random.up_to(max_us));
            Wait { before: Pause::Time(time), after: Pause::None }
        }
        Delay::Anytime { turns, slow, slow_one_in } => {
            let is_slow = slow_one_in > 0 && random.up_to(u64::from(slow_one_in - 1)) == 0;
            let max = if is_slow { millis(slow) } else { u64::from(turns) };
            let total = random.up_to(max);
            let before = random.up_to(total);
            let pause = |amount| match is_slow {
                true => Pause::Time(Duration::from_millis(amount)),
                false => Pause::Turns(amount),
            };
            Wait { before: pause(before), after: pause(total - before) }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
