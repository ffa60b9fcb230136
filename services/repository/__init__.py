"""The repository: the only writer of models and artifacts; a version is visible once it is whole
and never changes.
"""
