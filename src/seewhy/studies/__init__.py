"""Studies: questions about a model, answered on many pictures with intervals and controls."""
