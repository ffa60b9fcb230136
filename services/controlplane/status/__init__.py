"""Asks every service for its status and sums up the platform's. Imports no other room."""
