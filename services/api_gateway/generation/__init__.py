"""Serves text generation over REST. Imports http, upstream and transcoding."""
