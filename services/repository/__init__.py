"""The only writer of models and artifacts: a version becomes visible when all its bytes are stored,
and never changes afterwards.

Rooms, each importing only those before it: the root's `config`, `metrics` and `mongo`; `events`;
`catalogue`; `artifacts`; then the root's `servicer` and `main`.
"""
