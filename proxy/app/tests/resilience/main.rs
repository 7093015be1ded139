//! Timeouts, retries and their budget, breakers, limits, faults and hedges, each on virtual time with endpoints that do what a script
//! says; and a request that must not be executed twice, on real sockets.

mod breakers;
mod calls;
mod faults;
mod hedges;
mod limits;
mod once;
mod retries;
mod timeouts;
mod world;
