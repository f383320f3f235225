"""Decides which mouth is drawn next, by what, and lays it over its picture."""
