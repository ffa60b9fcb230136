"""Takes artifacts in and gives them out, whole or not at all. Imports catalogue and events."""
