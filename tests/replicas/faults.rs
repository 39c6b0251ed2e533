//! Whatever can come between a replica and the database, and that no answer is wrong for it.
