"""Questions about a model and its explanations, answered on many pictures with intervals and controls."""
