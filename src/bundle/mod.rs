//! A model directory: layouts, components, the roles of each graph's inputs and outputs.
