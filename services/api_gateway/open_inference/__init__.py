"""Serves the Open Inference Protocol over REST. Imports routing, http, upstream and transcoding."""
