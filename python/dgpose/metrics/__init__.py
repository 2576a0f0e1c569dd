"""Errors and scores, computed as the published tables compute them."""
