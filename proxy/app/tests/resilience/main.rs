//! Timeouts, retries and their budget, breakers, limits, faults and hedges, each on virtual time with endpoints that do what a script
//! says or speak TLS; and a request that must not be executed twice, on real sockets.

mod breakers;
mod calls;
mod faults;
mod hedges;
mod limits;
mod once;
mod origination;
mod retries;
mod timeouts;
mod world;
