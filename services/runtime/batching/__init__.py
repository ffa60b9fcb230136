"""Queues requests of each model and decides which of them share a call. Imports requests and execution."""
