"""Networks in files: written and recorded, opened and asked again; files of the C++ program."""
