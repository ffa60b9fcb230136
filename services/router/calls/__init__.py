"""Takes calls of models, invokes the models and records the outcomes. Imports fleet, naming and
dispatch.
"""
