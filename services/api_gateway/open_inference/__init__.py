"""Serves the Open Inference Protocol over REST. Imports http, upstream, transcoding and generation."""
