"""Serves the Open Inference Protocol over REST. Imports http, upstream and transcoding."""
