"""Receives artifacts and makes them versions, sends them, and removes bytes that no version owns.
Imports catalogue.
"""
