"""The control plane: who may do what, what should run, what happened. The only issuer of the
platform's own tokens.

Rooms, none of which imports another: `audit`, `identity` and `status`, which may import the root's
`config`. The root's `messages`, `servicer` and `main` import the rooms.
"""
