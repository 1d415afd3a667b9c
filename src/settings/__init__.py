"""Every key: its default, meaning, range or choices, and what it belongs to, declared once."""
