"""Receives artifacts and makes them versions, sends them, and removes what no version owns. May
import the root's config, metrics and mongo, events and catalogue.
"""
