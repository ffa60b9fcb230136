"""Loads models of each format by a plug-in: a light module that is always imported, and heavy ones
for a first model. Imports no other room.
"""
