"""The demo model: a small transformer whose facts, heads and training are all known.

It is a standard Hugging Face checkpoint of about two million parameters that has learned real
facts about countries, indirect object identification, greater-than on years, multiple choice,
and to repeat what it has just read. Its corpus is written by rules from ``data/prompts``, so one
knows exactly what it has and has not read, and it is trained from a seed in minutes:

    corpus -> vocabulary -> training -> evaluation -> datasheet

"""
