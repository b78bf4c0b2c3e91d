"""What a run shows: tables from the journal, the measures of a crisis, the agreement with a recorded market."""
