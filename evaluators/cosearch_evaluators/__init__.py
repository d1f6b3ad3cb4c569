"""Evaluators that come with cosearch; they enter by the same door as a stranger's."""
