//! Random histories of the link and the queue against simple models of them. Those of the actor are in
//! `src/supervisor/model`, since they play what it is made of.

mod link;
mod queue;
mod seeds;
