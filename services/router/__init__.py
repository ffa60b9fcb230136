"""Authorises every call of a model, chooses where it runs and waits for its replies."""
