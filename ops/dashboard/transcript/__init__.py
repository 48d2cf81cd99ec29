"""Transcripts as conversations. They are hostile input: each text is made visible, bounded and escaped here."""
