"""Turns models into artifacts and back, a module for each kind of model.

Imports nothing of the other rooms. Each framework is imported only where a model of it is stored
or loaded.
"""
