"""Takes calls of models, invokes the models and records the outcomes. Imports queueing, fleet,
naming and dispatch.
"""
