//! A disk that fails, fills up or stalls while the program runs: acknowledged changes are kept.

mod book;
mod faults;
mod shim;
mod space;
mod stalls;
