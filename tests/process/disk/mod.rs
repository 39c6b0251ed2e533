//! Tests that acknowledged changes are kept if the disk fails, fills up or stalls while the program
//! runs.

mod book;
mod faults;
mod shim;
mod space;
mod stalls;
