"""Files at URLs: what a run reads is staged to the local disk, what it writes is sent back."""
