"""Predictions and scores for people: tables, pages, pictures, heat maps."""
