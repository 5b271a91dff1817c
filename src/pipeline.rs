//! Load a pipeline once, run any number of requests, watch every step.
