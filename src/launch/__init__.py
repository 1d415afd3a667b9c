"""The processes of a run: rank tables, what each host starts, and looking after it."""
