"""Loads scikit-learn models from skops files. Imports formats.port and formats.installed."""
