"""Many runs as an experiment: what is run, going on after a kill, one table of all of it, SQL, the study of scale."""
