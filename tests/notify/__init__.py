"""Notifications, with real programs and a real HTTP server."""
