"""What the repository demands of itself, as functions from a root folder or a descriptor set to
sentences of complaint.

A check never looks at where it is run, so that a test can plant a violation in a copy and see it
found.
"""
