"""The evidence of an explanation: heat map, similar pictures, and descriptions."""
