//! A disk that fails, fills or stalls under the program, and what it must keep by then.

mod book;
mod faults;
mod shim;
mod space;
mod stalls;
