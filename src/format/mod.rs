//! Bytes on the device to types and back. No I/O.
