//! What is counted and how it is shown: building blocks for counters and histograms.

pub mod histogram;
