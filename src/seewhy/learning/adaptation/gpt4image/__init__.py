"""GPT4Image: a network taught by the texts that a language model wrote of its pictures."""
