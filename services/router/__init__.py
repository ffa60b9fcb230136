"""The router: authorises every call of a model, chooses where it runs, and waits for replies."""
