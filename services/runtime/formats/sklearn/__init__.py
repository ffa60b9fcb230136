"""Loads scikit-learn models from skops files. Imports none of the other formats."""
