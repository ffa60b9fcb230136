"""Counts the results of a run and writes them as text, JSON and Markdown.

Imports cases.
"""
