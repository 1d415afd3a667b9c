"""Networks in files: export, records, inputs and scores of the C++ program, one predictor."""
