//! Goal: whatever a kernel, a disk or an operator does to the running daemon ends in a right
//! answer, a counted miss or a clear refusal. Method: the real binary on loop devices and image
//! files; each test breaks something, lifts the fault, restarts, and compares what is there with
//! what was acknowledged. `docs/operating.md`, "When things break", names the tests.

mod clock;
mod frozen;
mod gone;
mod ledger;
mod limits;
mod old_copy;
mod read_only;
mod sigkills;
mod space;
mod stopped;
mod twice;
