"""Takes calls of models, resolves, readies and sends them, and records what became of each. Imports queueing, fleet, naming and dispatch."""
