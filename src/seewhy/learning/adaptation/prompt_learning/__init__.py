"""Prompt learning: a few vectors before every class's name, learnt of a few pictures, with both towers frozen."""
