"""Model formats, one plug-in each. A module here is imported only when its entry point is loaded."""
